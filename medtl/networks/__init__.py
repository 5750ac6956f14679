"""Networks: building, loading, tracing, and cutting at any layer."""
