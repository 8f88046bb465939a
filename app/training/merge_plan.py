"""Check the files of a merge before its job is recorded, and complete its request.

The job checks them again, because another version may be current then.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from app.data.columns.limits import check_design
from app.errors import InvalidInput
from app.registry.base import ModelReader
from app.registry.origin import no_rows
from app.registry.untrusted import MAX_HEADER_BYTES, ForeignFile, header_bytes
from app.training.columns import check_versions, current_version
from app.training.request import TrainingRequest
from app.training.united_columns import UnitedColumns
from app.training.version_files import places_of

# Bytes of tensors up to which a file is checked before its job is recorded. The job checks the others.
MAX_CHECKED_BYTES = 128 << 20
HEADER_FACTOR = 12  # Bytes that reading a header takes, for each of its bytes.


def plan_merge(
    draft: TrainingRequest,
    path: Path,
    registry: ModelReader,
    min_rows: int,
    reserved: Callable[[int], AbstractContextManager[object]],
) -> TrainingRequest:
    """Return the request with the columns of the model, after checking the files.

    `reserved` reserves the bytes that a file takes. Raises InvalidInput if a file is not valid, has fewer rows than
    `min_rows`, or does not fit the model.
    """
    current = current_version(registry, draft.model, draft.mode)
    if draft.mode == "forget":
        check_versions(draft, current, registry)
    elif current is not None and current.card.imported is not None and not current.card.has_rows:
        raise InvalidInput(no_rows(current.card.version, current.card.imported))
    united = None if current is None else UnitedColumns.of(current.card)
    for file in files_of(path, reserved):
        file.check_has_rows()
        if file.card.rows < min_rows:
            raise InvalidInput(
                f"{file.label} has {file.card.rows} row(s), and this service merges files of at least {min_rows} rows "
                "(LINSERVE_MIN_MERGE_ROWS)."
            )
        if file.memory <= MAX_CHECKED_BYTES:
            with reserved(file.memory):
                file.read()
        united = (united or UnitedColumns.of(file.card)).joined(file.card, file.label, adds=draft.mode == "update")
    assert united is not None
    check_design(united.table.features)
    return replace(draft, features=united.features, targets=united.targets, terms=united.terms)


def files_of(
    path: Path, reserved: Callable[[int], AbstractContextManager[object]] = nullcontext
) -> Iterator[ForeignFile]:
    """Yield the files of an upload, with their headers checked. `reserved` reserves the bytes that a header takes.

    Raises InvalidInput if a file is not valid, or if two are the same.
    """
    seen: dict[str, str] = {}
    with path.open("rb") as upload:
        for number, place in enumerate(places_of(path), 1):
            with reserved(HEADER_FACTOR * min(header_bytes(upload, place.offset), MAX_HEADER_BYTES)):
                file = ForeignFile(upload, *place, label=f"File {number}")
                if (other := seen.setdefault(file.checksum, file.label)) != file.label:
                    raise InvalidInput(f"{file.label} is the same as {other}, so its rows would count twice.")
                yield file
