"""Jobs: what each entry point does, told from data to registry; everything but the command line."""
