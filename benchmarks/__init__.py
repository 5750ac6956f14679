"""Benchmarks of medtl against a plain PyTorch loop on the same images in the same run."""
