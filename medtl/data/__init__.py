"""Data sets: manifests, labels, patients, splits, and the cache of pixels."""
