"""Evaluation: metrics with intervals, calibration, pictures and explanation, from scores."""
