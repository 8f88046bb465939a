"""Which version a request is for."""

import asyncio
from dataclasses import dataclass

from app.registry.publisher import ModelPublisher
from app.registry.version_file import Version


@dataclass(frozen=True)
class VersionSelector:
    """A model's current version, or the one of that number. It is looked for when it is asked for, and not before.

    Both ways to ask raise what `ModelPublisher.current` and `ModelPublisher.version` do.
    """

    registry: ModelPublisher
    model: str
    number: int | None = None

    def __call__(self) -> Version:
        if self.number is None:
            return self.registry.current(self.model)
        return self.registry.version(self.model, self.number)

    async def resolve_async(self) -> Version:
        """For an event loop: what is at hand at once, and what has to be read from a thread."""
        version = self.registry.get_cached(self.model, self.number)
        return await asyncio.to_thread(self) if version is None else version
