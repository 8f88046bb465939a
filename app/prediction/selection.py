"""The version that a request names."""

import asyncio
from dataclasses import dataclass

from app.errors import ModelFileInvalid, NotFound, Unavailable
from app.registry.base import ModelReader
from app.registry.splits import Split
from app.registry.version_file import Version


@dataclass(frozen=True)
class VersionSelector:
    """A model's current version, or the version with this number. It is looked up on each call.

    With a split, the version is that of the client's bucket, while the split applies. If its file cannot be read, it
    is the current one. If `least` is given, only versions from `least` on answer.

    Raises as `ModelReader.current` and `ModelReader.version` do; Unavailable if the number of the current version is
    below `least`.
    """

    registry: ModelReader
    model: str
    number: int | None = None
    least: int | None = None
    split: Split | None = None
    bucket: int = 0

    def __call__(self) -> Version:
        """Return the version. This may read a file."""
        if self.number is not None:
            return self.registry.version(self.model, self.number)
        if self.split is not None and (version := self._of_split(self.split)) is not None:
            return version
        return self.registry.current(self.model) if self.least is None else self._current_from(self.least)

    async def resolve_async(self) -> Version:
        """Return the version. A file that has to be read is read in a thread."""
        if self.split is not None:
            chosen = self._cached_of_split(self.split)
            return await asyncio.to_thread(self) if chosen is None else chosen
        version = self.registry.get_cached(self.model, self.number)
        if version is None or (self.least is not None and version.card.version != self.least):
            return await asyncio.to_thread(self)
        return version

    def _cached_of_split(self, split: Split) -> Version | None:
        """Return the version of the client's bucket, if nothing has to be read for it."""
        current = self.registry.get_cached(self.model)
        if current is None or current.card.version != split.current or self._is_below(current):
            return None
        number = split.version_of(self.bucket, self.least)
        if number is None or number == current.card.version:
            return current
        try:
            return self.registry.get_cached(self.model, number)
        except (NotFound, ModelFileInvalid):
            return None

    def _of_split(self, split: Split) -> Version | None:
        """Return the version of the client's bucket, or None if the split is over or has no version that may answer."""
        current = self.registry.current(self.model)
        if self._is_below(current):
            try:
                self.registry.refresh(self.model)
            except Unavailable:
                return None
            current = self.registry.current(self.model)
        if current.card.version != split.current:
            return None
        number = split.version_of(self.bucket, self.least)
        if number is None or number == current.card.version:
            return None if number is None else current
        try:
            return self.registry.version(self.model, number)
        except (NotFound, ModelFileInvalid):  # deleted or damaged since the split was set
            return None

    def _is_below(self, version: Version) -> bool:
        return self.least is not None and version.card.version < self.least

    def _current_from(self, least: int) -> Version:
        """Return the current version, after a look at the storage unless its number is `least` already."""
        version = self.registry.get_cached(self.model)
        if version is None or version.card.version != least:
            try:
                self.registry.refresh(self.model)
            except Unavailable:
                if version is None or version.card.version < least:
                    raise
            version = self.registry.current(self.model)
        if version.card.version < least:
            raise Unavailable(
                f'Version {version.card.version} of "{self.model}" is served here, and the request accepts no version '
                f"below {least}. Promote a later version, or try again once it is promoted."
            )
        return version
