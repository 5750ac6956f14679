"""One module an architecture of this project."""
