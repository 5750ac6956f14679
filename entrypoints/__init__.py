"""Command-line entry points: options, settings, one call."""
