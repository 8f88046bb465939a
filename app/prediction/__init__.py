"""Predict for rows and tables."""
