"""Limit the memory that the steps of one imported file take, by counting the pieces that they make.

A piece is a product in a sum, or a level or code of a category. A short file can make very many of them, because each
step may use the results of earlier steps several times.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from app.errors import InvalidInput

MAX_PIECES = 500_000  # Most pieces of one file. 2,000 products of scaled columns need about 70,000.
PIECES_BYTES = 64 << 20  # Memory of MAX_PIECES pieces, in bytes.

_left: ContextVar[int | None] = ContextVar("left", default=None)  # pieces that the file may still make


@contextlib.contextmanager
def limited_pieces() -> Iterator[None]:
    """Limit the pieces that are made in the block to MAX_PIECES."""
    token = _left.set(MAX_PIECES)
    try:
        yield
    finally:
        _left.reset(token)


def count_pieces(count: int) -> None:
    """Count pieces before they are made. Raises InvalidInput if the file has made too many."""
    left = _left.get()
    if left is None:
        return
    if left < count:
        raise InvalidInput(
            f"The steps of the file make more than {MAX_PIECES:,} products, levels or codes. Write the model with "
            "fewer steps, or with fewer columns."
        )
    _left.set(left - count)
