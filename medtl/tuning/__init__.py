"""Hyperparameter search with Optuna: space, study, storage, linear probe, workers."""
