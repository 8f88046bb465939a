"""Versions in a store that machines share: a pointer per model, which is replaced only if nobody else did meanwhile."""
