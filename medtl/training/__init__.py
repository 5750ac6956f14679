"""Training loop, learner, activation cache, checkpoints, distributed training."""
