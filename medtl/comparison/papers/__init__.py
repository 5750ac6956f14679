"""One module a paper: the trainings that its question consists of."""
