"""The pointer of a model: which versions there are, and which is current.

It is the only blob of a model that is ever replaced, so one conditional write is one change of the model. Numbers of
versions are kept as runs, so that 10,000 versions take as many bytes as one.
"""

import secrets
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Annotated

import msgspec

from app.errors import ModelFileInvalid
from app.registry.bucket.keys import MAX_VERSION

Number = Annotated[int, msgspec.Meta(gt=0, lt=MAX_VERSION)]
Run = tuple[Number, Number]  # first and last number

# Last sentence of the message about a pointer that cannot be read.
_REMEDY = "Restore it from a backup."


class Latest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last publication, if it was for an upload. Its marker may not be written yet."""

    number: Number
    upload: str


class Pointer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The state of a model. Every change has a new nonce, so no two pointers have the same content."""

    current: Number | None = None
    last: Annotated[int, msgspec.Meta(ge=0, lt=MAX_VERSION)] = 0  # highest number that was ever a version's
    versions: tuple[Run, ...] = ()  # ascending, with a gap between any two
    deleted: tuple[Run, ...] = ()  # versions that were deleted, in the same form; some of their files may be left
    latest: Latest | None = None
    revision: Annotated[int, msgspec.Meta(ge=0)] = 0  # number of changes
    nonce: str = ""

    def contains(self, number: int) -> bool:
        """Return True if there is a version with this number."""
        return _contains(self.versions, number)

    def was_deleted(self, number: int) -> bool:
        """Return True if there was a version with this number that was deleted."""
        return _contains(self.deleted, number)

    def numbers(self) -> Iterator[int]:
        """Yield the numbers of all versions, ascending."""
        for first, last in self.versions:
            yield from range(first, last + 1)

    def numbers_below(self, number: int) -> Iterator[int]:
        """Yield the numbers of the versions below this one, descending."""
        for first, last in reversed(self.versions):
            yield from range(min(last, number - 1), first - 1, -1)

    def is_dead(self, number: int) -> bool:
        """Return True if there is no version with this number, and there will never be one."""
        return number <= self.last and not self.contains(number)

    def with_version(self, number: int, upload: str | None = None, *, promote: bool = False) -> "Pointer":
        """Return the pointer after the publication of a version, whose number is higher than any before."""
        assert number > self.last
        runs = self.versions
        follows = bool(runs) and runs[-1][1] == number - 1
        runs = (*runs[:-1], (runs[-1][0], number)) if follows else (*runs, (number, number))
        return self._changed(
            current=number if promote else self.current,
            last=number,
            versions=runs,
            latest=None if upload is None else Latest(number, upload),
        )

    def without_version(self, number: int) -> "Pointer":
        """Return the pointer after the deletion of a version."""
        assert self.contains(number)
        runs = [
            part
            for first, last in self.versions
            for part in (((first, number - 1), (number + 1, last)) if first <= number <= last else ((first, last),))
            if part[0] <= part[1]
        ]
        return self._changed(versions=tuple(runs), deleted=_merged((*self.deleted, (number, number))))

    def with_last(self, last: int) -> "Pointer":
        """Return the pointer with this `last`, so that no number up to it is used for a new version."""
        return self._changed(last=last)

    def with_current(self, number: int) -> "Pointer":
        """Return the pointer after the promotion of a version."""
        return self._changed(current=number)

    def without_versions(self) -> "Pointer":
        """Return the pointer after the deletion of the model. It is kept, because it has the last number."""
        return self._changed(current=None, versions=(), deleted=_merged((*self.deleted, *self.versions)))

    def encode(self) -> bytes:
        """Return the content of the blob."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, content: bytes, place: str) -> "Pointer":
        """Read the content of the blob at `place`, its key or URL. Raises ModelFileInvalid, which names the place."""
        try:
            pointer = msgspec.json.decode(content, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ModelFileInvalid(f"{place} is not a pointer to versions: {error}. {_REMEDY}") from None
        if not pointer.nonce:
            raise ModelFileInvalid(f"{place} is not a pointer to versions: it has no nonce. {_REMEDY}")
        for runs in (pointer.versions, pointer.deleted):
            ordered = all(first <= last for first, last in runs) and all(a[1] < b[0] for a, b in pairwise(runs))
            if not ordered or (runs and runs[-1][1] > pointer.last):
                raise ModelFileInvalid(
                    f"{place} is not a pointer to versions: its versions are not in order. {_REMEDY}"
                )
        return pointer

    def _changed(self, **fields: object) -> "Pointer":
        fields |= {"revision": self.revision + 1, "nonce": secrets.token_hex(8)}
        return msgspec.structs.replace(self, **fields)


def _contains(runs: Sequence[Run], number: int) -> bool:
    index = bisect_right(runs, number, key=lambda run: run[0])
    return index > 0 and number <= runs[index - 1][1]


def _merged(runs: Iterable[Run]) -> tuple[Run, ...]:
    """Return the runs in ascending order. Those without a gap in between become one."""
    merged: list[Run] = []
    for first, last in sorted(runs):
        if merged and merged[-1][1] >= first - 1:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    return tuple(merged)
