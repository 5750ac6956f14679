"""Checks of a data set before training: copies, sizes, shortcuts."""
