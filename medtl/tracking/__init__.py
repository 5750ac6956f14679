"""MLflow: runs, artifacts, store, registry, promotion gate, logged model."""
