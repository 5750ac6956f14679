"""Tracking: everything MLflow: runs, artifacts, the registry and the served model."""
