"""One module an entry point: the course of the command, nothing else."""
