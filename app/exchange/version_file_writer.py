"""A version as the file in which the registry keeps it."""

from collections.abc import Mapping

from app.registry.version_file import Version, encode


class LinserveExport:
    """The full version file. The service sends the file that it has, with the folds of a cross-validation."""

    name = "linserve"
    media_type = "application/vnd.linserve.version"
    extension = ".linserve.safetensors"
    options: Mapping[str, tuple[str, ...]] = {}

    def not_carried(self, version: Version) -> tuple[str, ...]:  # noqa: ARG002 - the same for all versions
        return ()

    def write(self, version: Version, options: Mapping[str, str]) -> bytes:  # noqa: ARG002 - it has none
        """Return the file without folds, which `Version` does not hold."""
        return encode(version.card, version.model)
