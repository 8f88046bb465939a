"""A harness that hurts a running service and checks what it promises: `make chaos` and `make chaos-proof`."""
