"""The interfaces of imports and exports."""

from collections.abc import Mapping
from typing import Protocol

from app.exchange.imported import ImportedModel
from app.registry.version_file import Version


class Export(Protocol):
    """A format that versions are exported in."""

    @property
    def name(self) -> str:
        """The value of `format` in a query."""

    @property
    def media_type(self) -> str: ...

    @property
    def extension(self) -> str:
        """The extension of a file's name, with its dot."""

    @property
    def options(self) -> Mapping[str, tuple[str, ...]]:
        """The options of this format with the values that they may have. The first value is the default.

        An option without values may have any text. Its default is an empty one.
        """

    def not_carried(self, version: Version) -> tuple[str, ...]:
        """Return a sentence for each part of this version that the format cannot carry. The file repeats them."""

    def write(self, version: Version, options: Mapping[str, str]) -> bytes:
        """Return the file. Raises NotExportable if the format cannot hold this model at all."""


class Import(Protocol):
    """A format that models are imported from."""

    @property
    def name(self) -> str: ...

    @property
    def media_type(self) -> str: ...

    @property
    def extensions(self) -> tuple[str, ...]: ...

    def matches(self, content: bytes) -> bool:
        """Return True if this content may be a file of this format."""

    def working_bytes(self, content: bytes) -> int:
        """Return an estimate of the bytes that reading the content takes, in addition to it."""

    def read(self, content: bytes, options: Mapping[str, str]) -> ImportedModel:
        """Return the model in a file. Raises InvalidInput; its pointer names the place if the file is JSON.

        The options `features` and `targets` are names separated by commas, for formats that do not name columns.
        """
