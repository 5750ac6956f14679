"""Data: files, labels, patients, splits, and pixels decoded once."""
