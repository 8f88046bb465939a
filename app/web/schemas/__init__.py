"""The public contract: request and response bodies."""
