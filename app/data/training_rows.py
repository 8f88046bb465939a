"""Stored training rows, whatever their format, to a stream of blocks."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from app.data.csv_rows import read_csv
from app.errors import Detail, InvalidInput
from app.regression.block import Block

Array: TypeAlias = NDArray[np.float64]
Format: TypeAlias = Literal["matrix", "csv"]

BLOCK_ROWS = 8192


def write_matrix(file: BinaryIO, *columns: Array) -> None:
    """Store rows that are already numbers: [x, y], or [x, y, weights], side by side, float64."""
    np.save(file, np.hstack(columns), allow_pickle=False)


def read_blocks(
    path: Path, form: Format, features: Sequence[str], targets: Sequence[str], weight: str | None = None
) -> Iterator[Block]:
    """Blocks of at most a few thousand rows, in the columns' given order, `weight` the name of that of weights.

    Raises InvalidInput with row and column of the first value that is missing, not a number or not finite, or of the
    first weight that is negative.
    """
    if form == "matrix":
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
        blocks: Iterator[Array] = (np.asarray(rows[i : i + BLOCK_ROWS]) for i in range(0, len(rows), BLOCK_ROWS))
    else:
        blocks = read_csv(path, [*features, *targets, *([weight] if weight else [])])
    first, row = len(features), 2
    for block in blocks:
        weights = block[:, -1] if weight else None
        if weights is not None and (weights < 0).any():
            at = row + int(np.argmax(weights < 0))
            message = "A weight cannot be negative."
            raise InvalidInput(f'Row {at}, column "{weight}": {message}', [Detail(message, row=at, column=weight)])
        yield Block(block[:, :first], block[:, first : first + len(targets)], weights)
        row += len(block)
