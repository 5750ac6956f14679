"""The command-line doors: options, settings, one call."""
