"""Versions in a folder that all processes share: exclusive links and renames."""
