"""One module a study: a paper's comparison, or a grid of the user's own."""
