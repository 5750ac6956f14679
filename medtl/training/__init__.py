"""Training: what is kept at a cut, and the one loop that trains what comes after it."""
