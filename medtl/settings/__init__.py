"""Settings of the entry points: frozen, typed, each described and checked."""
