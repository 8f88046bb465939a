"""PMML 4.4, both directions."""
