"""Versioned models on disk: publish, load, promote, roll back."""
