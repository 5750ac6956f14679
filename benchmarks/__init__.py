"""What medtl costs, measured against a plain PyTorch loop on the same images in the same run."""
