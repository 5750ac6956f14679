"""Weights files as they are published: their names of layers, and their tensors in a network."""
