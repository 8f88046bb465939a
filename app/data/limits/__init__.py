"""Size limits that are checked before a file is decoded."""
