"""The version that a request names."""

import asyncio
from dataclasses import dataclass

from app.registry.base import ModelReader
from app.registry.version_file import Version


@dataclass(frozen=True)
class VersionSelector:
    """A model's current version, or the version with this number. It is looked up on each call.

    Raises as `ModelReader.current` and `ModelReader.version` do.
    """

    registry: ModelReader
    model: str
    number: int | None = None

    def __call__(self) -> Version:
        """Return the version. This may read a file."""
        if self.number is None:
            return self.registry.current(self.model)
        return self.registry.version(self.model, self.number)

    async def resolve_async(self) -> Version:
        """Return the version. A file that has to be read is read in a thread."""
        version = self.registry.get_cached(self.model, self.number)
        return await asyncio.to_thread(self) if version is None else version
