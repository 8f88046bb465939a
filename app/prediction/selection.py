"""The version that a request names."""

import asyncio
from dataclasses import dataclass

from app.errors import Unavailable
from app.registry.base import ModelReader
from app.registry.version_file import Version


@dataclass(frozen=True)
class VersionSelector:
    """A model's current version, or the version with this number. It is looked up on each call.

    Raises as `ModelReader.current` and `ModelReader.version` do; Unavailable if the number of the current version is
    below `least`.
    """

    registry: ModelReader
    model: str
    number: int | None = None
    least: int | None = None

    def __call__(self) -> Version:
        """Return the version. This may read a file."""
        if self.number is not None:
            return self.registry.version(self.model, self.number)
        return self.registry.current(self.model) if self.least is None else self._current_from(self.least)

    async def resolve_async(self) -> Version:
        """Return the version. A file that has to be read is read in a thread."""
        version = self.registry.get_cached(self.model, self.number)
        if version is None or (self.least is not None and version.card.version != self.least):
            return await asyncio.to_thread(self)
        return version

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
