"""Read a version file that another service exported.

It has statistics, so the version can be updated. Its history belongs to the other service, and is not imported.
"""

import io
from collections.abc import Mapping
from dataclasses import replace

import msgspec
import numpy as np

from app.errors import InvalidInput
from app.exchange.imported import ImportedModel, Statistics
from app.exchange.portable import PortableModel
from app.exchange.safetensors_reader import LENGTH_BYTES, is_safetensors
from app.registry.untrusted import MAX_HEADER_BYTES, ForeignFile, ForeignVersion

HEADER_FACTOR = 12  # Bytes that reading a header takes, for each of its bytes.


class _Metadata(msgspec.Struct):
    card: str | None = None
    sha256: str | None = None


class _Header(msgspec.Struct):
    metadata: _Metadata | None = msgspec.field(name="__metadata__", default=None)


class VersionImport:
    """Reads version files of this service."""

    name = "linserve"
    media_type = "application/vnd.linserve.version"
    extensions = (".safetensors",)

    def matches(self, content: bytes) -> bool:
        if not is_safetensors(content):
            return False
        length = int.from_bytes(content[:LENGTH_BYTES], "little")
        if length > MAX_HEADER_BYTES:
            return False
        try:
            header = msgspec.json.decode(memoryview(content)[LENGTH_BYTES : LENGTH_BYTES + length], type=_Header)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return False
        return header.metadata is not None and None not in (header.metadata.card, header.metadata.sha256)

    def working_bytes(self, content: bytes) -> int:
        length = int.from_bytes(content[:LENGTH_BYTES], "little")
        return HEADER_FACTOR * min(length, MAX_HEADER_BYTES) + 4 * len(content)

    def read(self, content: bytes, options: Mapping[str, str]) -> ImportedModel:  # noqa: ARG002 - the file has all names
        file = ForeignFile(io.BytesIO(content), 0, len(content), "The file")
        return _to_imported(file.read())


def _to_imported(version: ForeignVersion) -> ImportedModel:
    card, tensors = version.card, version.tensors
    if "coef" not in tensors or "intercept" not in tensors:
        raise InvalidInput("The file has no coefficients. Export the version again, as a whole.")
    at_centre = tensors.get("centre_prediction")
    statistics = version.known_statistics
    portable = PortableModel(card.schema_of_rows, tensors["coef"], tensors["intercept"], card.terms)
    source = f"Linserve, version {card.version} of {card.model}" if card.model else "Linserve"
    if statistics is None:
        if at_centre is not None:
            portable = replace(portable, centre=tensors.get("stored_centre"), start=at_centre)
        return ImportedModel(portable, source=source)
    if at_centre is not None and not np.isfinite(at_centre).all():
        raise InvalidInput("The prediction at the centre is not finite. Export the version again.")
    given = Statistics(
        statistics,
        "statistics" if card.imported is None else card.imported.given,
        at_centre,
        fit_intercept=card.solver.fit_intercept,
        l2=card.solver.l2,
        means_unknown=card.imported is not None and card.imported.means_unknown,
    )
    return ImportedModel(portable, given, source=source)
