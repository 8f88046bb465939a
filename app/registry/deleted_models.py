"""Models that were deleted, and the last number that each of them used.

    models/.deleted/crop-yield/last       7: numbers up to it are never used again
    models/.deleted/crop-yield/000007/    files of the deleted model, until they are removed

A model's folder is moved there in one step, so that a crash leaves the model whole or deleted. The last number is
written before the move, and the files are removed after it.
"""

import contextlib
import shutil
from pathlib import Path

from app.errors import ModelFileInvalid
from app.failpoints import failpoint
from app.storage.folder import replace_file, sync_folder

FOLDER = ".deleted"  # Not a valid model name.
_LAST = "last"


def last_number(models: Path, model: str) -> int:
    """Return the last number that deleted models of this name used; 0 if there are none.

    Raises ModelFileInvalid if the record has no number; OSError.
    """
    try:
        text = (models / FOLDER / model / _LAST).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return 0
    if not (text.isascii() and text.strip().isdigit()):
        raise ModelFileInvalid(f'{FOLDER}/{model}/{_LAST} has no number. Write the last one that "{model}" used.')
    return int(text)


def move(models: Path, model: str, last: int) -> None:
    """Delete a model whose last number is `last`. The caller holds the lock of its folder.

    Raises OSError if the model is not deleted.
    """
    records = models / FOLDER / model
    records.mkdir(parents=True, exist_ok=True)
    replace_file(records / _LAST, b"%d\n" % last)
    for folder in (records, records.parent, models):
        sync_folder(folder)
    place = records / f"{last:06d}"
    _remove(place)  # leftovers of an earlier deletion of this model, if it was restored from a copy since
    failpoint("deletion_prepared")
    (models / model).rename(place)
    failpoint("deleted")
    for folder in (records, models):
        sync_folder(folder)
    with contextlib.suppress(OSError):  # `sweep` removes the rest
        _remove(place)


def sweep(models: Path) -> None:
    """Remove the files of deleted models that a crash has left."""
    for place in models.glob(f"{FOLDER}/*/*"):
        if place.name.isdigit():
            with contextlib.suppress(OSError):
                _remove(place)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
