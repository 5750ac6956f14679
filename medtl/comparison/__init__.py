"""Comparisons of training recipes in one report."""
