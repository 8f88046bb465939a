"""Diagnostics of a fit that need its rows: computed in a second look at them, in batches, in bounded memory."""
