"""Sentences on the parts of a version that most exports cannot carry, and the check of an export's size.

The sentences are also in a header, so they contain no names and are ASCII.
"""

from collections.abc import Iterable

from app.data.names import unquoted
from app.errors import NotExportable
from app.exchange.portable import PortableModel
from app.registry.version_file import Version

INFERENCE = "Intervals, standard errors and tests are not carried."
WARNINGS = "Warnings about extrapolation and drift are not carried."
STATISTICS = "The statistics of the training rows, which updates need, are not carried."
OWN_SPELLINGS = (
    "Numbers, booleans and dates are read as typed values. Texts that the service also reads, such as 1,5 or "
    "31/12/2000, are not."
)


def left_behind(version: Version) -> tuple[str, ...]:
    """Return the sentences for a format that has only the prediction."""
    inference = (INFERENCE,) if version.model.inference_unavailable is None else ()
    statistics = (STATISTICS,) if version.card.has_rows else ()
    return (*inference, WARNINGS, *statistics)


def read_as_typed(version: Version) -> tuple[str, ...]:
    """Return a sentence if the service reads some features from texts that programs do not."""
    features = version.table.features
    is_spelt = any(
        column.kind in ("boolean", "date") or column.thousands or column.strip or column.decimal != "."
        for column in features
    )
    return (OWN_SPELLINGS,) if is_spelt else ()


def described(model: PortableModel, not_carried: Iterable[str]) -> list[str]:
    """Return lines about a model for the head of a file. They have no invisible characters and no line breaks."""
    about = model.description
    made = f", made {about['created_at']}" if about.get("created_at") else ""
    name, version = unquoted(about.get("model", "")), unquoted(about.get("version", ""))
    return [f"Model {name}, version {version}{unquoted(made)}, from Linserve.", *not_carried]


def check_size(size: int, most: int, subject: str, unit: str) -> None:
    """Raise NotExportable if a file of a format would be too large."""
    if size > most:
        raise NotExportable(
            f"{subject} has at most {most:,} {unit}, and this model needs {size:,}. Export it in another format."
        )
