"""Load the libraries that most trainings need, so that they reserve their memory before the trainer's is limited."""

import os

import numpy as np

from app.data.batch import Columns
from app.data.formats.csv import CSV


def warm_up() -> None:
    """Read a row with Arrow and multiply with BLAS."""
    # Arrow's own allocator reserves memory in pieces of up to 1 GiB, and could use any of it.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    list(CSV.batches(b"x\n1\n", Columns(["x"])))
    square = np.ones((64, 64))
    square @ square
