"""Models that were deleted, and the last number that each of them used.

    models/.deleted/crop-yield/000007/    "crop-yield" was deleted; 7 was its last number

A model's folder is moved there in one step, so that a crash leaves the model whole or deleted. Its files are removed
afterwards. The empty folder stays as a record: numbers of versions are never used again.
"""

import contextlib
import os
import re
import shutil
from pathlib import Path

from app.failpoints import reach
from app.registry.names import MODEL_NAME

FOLDER = ".deleted"  # not a model's name

_NUMBER = re.compile(r"\d{6,12}")


def last_number(models: Path, model: str) -> int:
    """Return the last number that deleted models of this name used; 0 if there are none."""
    try:
        names = os.listdir(models / FOLDER / model)  # noqa: PTH208 - names are all that is wanted
    except FileNotFoundError:
        return 0
    return max((int(name) for name in names if _NUMBER.fullmatch(name)), default=0)


def move(models: Path, model: str, last: int) -> None:
    """Delete a model whose last number is `last`. The caller holds the lock of its folder.

    Raises OSError if the model is not deleted.
    """
    records = models / FOLDER / model
    records.mkdir(parents=True, exist_ok=True)
    for folder in (records.parent, models):  # the names of new folders
        _sync(folder)
    place = records / f"{last:06d}"
    _empty(place)  # a model that was restored from a copy may use a number again
    reach("deletion_prepared")
    (models / model).rename(place)
    reach("deleted")
    for folder in (records, models):
        _sync(folder)
    with contextlib.suppress(OSError):  # `sweep` removes the rest
        _empty(place)


def sweep(models: Path) -> None:
    """Remove the files of deleted models that a crash has left."""
    for place in models.glob(f"{FOLDER}/*/*"):
        if re.fullmatch(MODEL_NAME, place.parent.name) and _NUMBER.fullmatch(place.name):
            with contextlib.suppress(OSError):
                _empty(place)


def _empty(folder: Path) -> None:
    """Remove what is in the folder; one that is not there is empty."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                Path(entry.path).unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
