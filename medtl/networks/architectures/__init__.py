"""One module an architecture, or a library of them; each registers itself."""
