"""A harness that breaks a running service and checks its guarantees: `make chaos` and `make chaos-proof`."""
