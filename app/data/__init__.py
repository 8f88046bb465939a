"""Rows in any format to float64, with the place of every fault."""
