"""Served model: request parsing, decoding, micro-batching, answers."""
