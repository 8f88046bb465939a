"""Predictions that were recorded by their ids, and the outcomes that came later."""
