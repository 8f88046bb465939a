"""Versions in use: the rows that they predict for, their requests, and the errors of their predictions."""
