"""Storage on disk and in buckets."""
