"""Matplotlib figures from arrays and tables."""
