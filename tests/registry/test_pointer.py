"""The pointer of a model in a store."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ModelFileInvalid
from app.registry.bucket.pointer import Pointer

PLACE = "s3://bucket/models/line/pointer"


@given(st.integers(1, 12), st.lists(st.integers(0, 13)))
def test_a_pointer_has_the_numbers_that_were_added_and_not_removed(versions: int, deleted: list[int]) -> None:
    pointer = Pointer()
    for number in range(1, versions + 1):
        pointer = pointer.with_version(number, "upload", promote=False)
    for number in deleted:
        if pointer.contains(number):
            pointer = pointer.without_version(number)
    expected = [number for number in range(1, versions + 1) if number not in deleted]
    read = Pointer.decode(pointer.encode(), PLACE)
    assert read == pointer
    assert list(read.numbers()) == expected
    assert list(read.numbers_below(5)) == [number for number in reversed(expected) if number < 5]
    for number in range(-1, versions + 2):
        assert read.contains(number) == (number in expected)
        assert read.was_deleted(number) == (read.is_dead(number) and number > 0)
        assert read.is_dead(number) == (number <= versions and number not in expected)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"{}",
        b"[1]",
        b"[" * 100_000,
        b'{"nonce":"a","current":"7"}',
        b'{"nonce":"a","current":-1}',
        b'{"nonce":"a","last":1e30}',
        b'{"nonce":"a","last":9,"versions":[[3,2]]}',
        b'{"nonce":"a","last":9,"versions":[[3,5],[5,7]]}',
        b'{"nonce":"a","last":4,"versions":[[3,5]]}',
        b'{"nonce":"a","last":4,"deleted":[[4,5]]}',
        b'{"nonce":"a","next":{}}',
    ],
    ids=lambda content: repr(content[:60]),
)
def test_foreign_bytes_are_refused_with_their_place(content: bytes) -> None:
    with pytest.raises(ModelFileInvalid, match=f"^{PLACE} is not a pointer to versions: .*Restore it from a backup"):
        Pointer.decode(content, PLACE)
