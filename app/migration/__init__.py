"""Copies of models between a models folder and a store."""
