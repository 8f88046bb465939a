"""Columns of a table: the meaning of their cells, and the numbers that a model is fitted to.

A file has cells. A schema gives the kind of each column and how its cells are read. An encoder turns cells into the
columns of the design.
"""
