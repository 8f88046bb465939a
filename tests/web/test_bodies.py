"""Bodies while they are received."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.web.bodies import regroup


@pytest.mark.parametrize(
    ("lengths", "pieces"),
    [([], []), ([1], [1]), ([4, 4, 4], [8, 4]), ([3, 4, 20, 1], [7, 20, 1]), ([7, 7], [7, 7])],
)
def test_chunks_are_joined_to_at_least_a_size(lengths: list[int], pieces: list[int]) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for number, length in enumerate(lengths):
            yield bytes([number]) * length

    async def gather() -> list[bytes]:
        return [bytes(piece) async for piece in regroup(chunks(), 7)]

    found = asyncio.run(gather())
    assert [len(piece) for piece in found] == pieces
    assert b"".join(found) == b"".join(bytes([number]) * length for number, length in enumerate(lengths))
