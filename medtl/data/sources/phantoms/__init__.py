"""Embedded data sets of drawn phantoms; they show no patients."""
