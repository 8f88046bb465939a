"""The mathematics of linear models. Knows nothing of HTTP, jobs or files."""
