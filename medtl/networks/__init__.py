"""Networks: building architectures, loading weights, and cutting a network at any layer."""
