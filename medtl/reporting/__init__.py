"""Reports, model card and plots: numbers in, a page or a figure out."""
