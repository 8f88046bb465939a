"""Stored training rows, whatever their format, to a stream of blocks."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from app.data.csv_rows import read_csv
from app.regression.block import Block

Array: TypeAlias = NDArray[np.float64]
Format: TypeAlias = Literal["matrix", "csv"]

BLOCK_ROWS = 8192


def write_matrix(file: BinaryIO, x: Array, y: Array) -> None:
    """Store rows that are already numbers: [x, y] side by side, float64."""
    np.save(file, np.hstack([x, y]), allow_pickle=False)


def read_blocks(path: Path, form: Format, features: Sequence[str], targets: Sequence[str]) -> Iterator[Block]:
    """Blocks of at most a few thousand rows, in the columns' given order.

    Raises InvalidInput with row and column of the first value that is missing, not a number or not finite.
    """
    if form == "matrix":
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
        blocks: Iterator[Array] = (np.asarray(rows[i : i + BLOCK_ROWS]) for i in range(0, len(rows), BLOCK_ROWS))
    else:
        blocks = read_csv(path, [*features, *targets])
    for block in blocks:
        yield Block(block[:, : len(features)], block[:, len(features) :])
