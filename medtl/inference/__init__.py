"""Trained model: predictions, decisions, out-of-distribution checks, heat maps."""
