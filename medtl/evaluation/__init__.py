"""Statistics from scores: metrics, intervals, calibration, comparisons."""
