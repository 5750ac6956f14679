"""Search: the layer probe, the study over optimizer, learning rate and cut-off, the dictionary."""
