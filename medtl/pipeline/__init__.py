"""Steps that several commands share: set-up, pretraining, scoring, finishing."""
