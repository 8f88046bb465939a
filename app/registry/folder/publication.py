"""Publication and promotion of a version, and deletion of a model, in steps that survive a kill between any two.

    models/crop-yield/uploads/4f1c… -> ../000002.safetensors   the version that was published for this upload
    models/crop-yield/uploads/.last -> ../000002.safetensors   the highest number used or reserved so far
    models/crop-yield/.next -> 000002.safetensors              becomes `current` once there is a version 2
    models/crop-yield/000003.deleted           a number that was used; it has the upload of the deleted version
    models/.deleted/crop-yield/upload     the upload of its newest version
    models/.deleted/crop-yield/last       7: deleted models of this name used the numbers up to it
    models/.deleted/crop-yield/000007/    files of the deleted model, until they are removed

An exclusive link publishes a version: it gives the file its number. The marker of the upload, and `.next` if the
version is to be promoted, are made before the link. They have no effect until a version with their number exists.
After the link, `.next` is renamed to `current`. If a publisher is killed before the link, nothing was published. If it
is killed after the link, the next process that locks the folder renames `.next`. The folder is locked throughout.

A deleted model's folder is moved to `.deleted` in one step. The last number is written before the move, and the files
are removed after it.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from app.errors import ModelFileInvalid, PromotionFailed
from app.failpoints import failpoint
from app.registry.names import version_deleted
from app.registry.version_file import read_card
from app.storage.folder import replace_file, replace_link, sync_folder, temporary_path

VERSION_FILE = re.compile(r"(\d{6,12})\.(safetensors|deleted)")
UPLOADS = "uploads"
DELETED = ".deleted"  # Not a valid model name.
_LAST = ".last"
_LAST_OF_DELETED = "last"
_UPLOAD_OF_DELETED = "upload"
_NEXT = ".next"
_UP = "../"
_UPLOAD = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,127}")


def file_name(number: int) -> str:
    """Return the name of a version's file in its model's folder."""
    return f"{number:06d}.safetensors"


def deleted_name(number: int) -> str:
    """Return the name of the file that says that this number was used. It has the upload of the deleted version."""
    return f"{number:06d}.deleted"


def number_of(link: str) -> int | None:
    """Return the version number in a symbolic link's target, or None."""
    match = VERSION_FILE.fullmatch(link.removeprefix(_UP))
    return int(match[1]) if match and match[2] == "safetensors" else None


def target_of(link: Path) -> int | None:
    """Return the number of the version that the symbolic link at `link` points to, or None."""
    try:
        return number_of(os.readlink(link))  # noqa: PTH115 - a third of the time of Path's
    except OSError:
        return None


def complete(folder: Path) -> None:
    """Finish the promotion of a killed publisher if its version was published; otherwise remove its `.next`.

    The folder must be locked.
    """
    number = target_of(folder / _NEXT)
    if number is None:
        return
    # A copy made during a publication may have a `.next` older than `current`.
    if (folder / file_name(number)).is_file() and number > (target_of(folder / "current") or 0):
        make_current(folder / _NEXT)
        sync_folder(folder)
    else:
        (folder / _NEXT).unlink()


def make_current(link: Path) -> None:
    """Rename a prepared symbolic link to `current`, atomically for all readers."""
    link.rename(link.with_name("current"))
    failpoint("promoted")


def published_for(folder: Path, upload: str) -> int | None:
    """Return the number of the version that was published for this upload, or None.

    Reads one card at most, unless the folder has no markers yet. Raises Conflict if the version was deleted;
    ModelFileInvalid if it is damaged; OSError.
    """
    try:
        number = _published_in(folder, upload)
    except (FileNotFoundError, NotADirectoryError):
        _check_not_deleted(folder, upload)
        raise
    # A process that was killed before it moved the folder leaves the record too, so a version goes before it.
    if number is None:
        _check_not_deleted(folder, upload)
    return number


def _check_not_deleted(folder: Path, upload: str) -> None:
    """Raise Conflict if this is the upload of the newest version of a deleted model."""
    if _text(folder.parent / DELETED / folder.name / _UPLOAD_OF_DELETED) == upload:
        raise version_deleted(folder.name, last_of_deleted(folder.parent, folder.name))


def _published_in(folder: Path, upload: str) -> int | None:
    if not (folder / UPLOADS).is_dir():
        found = (number for number, card_upload in _uploads_of_cards(folder) if card_upload == upload)
        return next(found, None)
    if not _UPLOAD.fullmatch(upload):
        return None
    number = target_of(folder / UPLOADS / upload)
    if number is None:
        return None
    if _text(folder / deleted_name(number)) == upload:
        raise version_deleted(folder.name, number)
    with contextlib.suppress(FileNotFoundError):
        # The marker of a killed publisher may name a number that another version has taken since.
        if read_card(folder / file_name(number)).upload == upload:
            return number
    return None


def prepare_markers(folder: Path) -> None:
    """Make the folder of markers if it does not exist, with a marker for each version.

    The folder must be locked. Reads all cards, once per model. Raises OSError.
    """
    uploads = folder / UPLOADS
    if uploads.is_dir():
        return
    temporary = temporary_path(folder)
    temporary.mkdir()
    for number, upload in _uploads_of_cards(folder):
        if _UPLOAD.fullmatch(upload):
            (temporary / upload).symlink_to(_UP + file_name(number))
    last = max((int(match[1]) for name in os.listdir(folder) if (match := VERSION_FILE.fullmatch(name))), default=0)  # noqa: PTH208 - only the names
    if last:
        (temporary / _LAST).symlink_to(_UP + file_name(last))
    sync_folder(temporary)
    temporary.rename(uploads)
    sync_folder(folder)


def add_marker(folder: Path, upload: str, number: int) -> None:
    """Record that this version was published for this upload. The folder must be locked and have markers."""
    if _UPLOAD.fullmatch(upload):
        replace_link(folder / UPLOADS / upload, _UP + file_name(number))


def free_number(folder: Path) -> int:
    """Return the next number, which no version has ever had. Does not list the folder."""
    # In a copy, `current` may point to a missing version; a new version of that number would be served.
    after_current = (target_of(folder / "current") or 0) + 1
    after_deleted = last_of_deleted(folder.parent, folder.name) + 1
    number = max(target_of(folder / UPLOADS / _LAST) or 1, after_current, after_deleted)
    while _is_used(folder, number):
        number += 1
    return number


def link_version(folder: Path, temporary: Path, number: int, *, upload: str | None, promote: bool) -> None:
    """Publish a durable file under this number, and make it current if asked.

    The folder must be locked and `complete`. The caller fsyncs it before it releases the lock.

    Raises FileExistsError if the number is taken; PromotionFailed; OSError if nothing was published.
    """
    uploads, name = folder / UPLOADS, file_name(number)
    if upload is not None:
        replace_link(uploads / upload, _UP + name)
    replace_link(uploads / _LAST, _UP + name)
    sync_folder(uploads)
    if promote:
        (folder / _NEXT).symlink_to(name)
        sync_folder(folder)
    failpoint("prepared")
    try:
        os.link(temporary, folder / name)
    except OSError:
        (folder / _NEXT).unlink(missing_ok=True)
        raise
    failpoint("linked")
    if not promote:
        return
    try:
        sync_folder(folder)
        make_current(folder / _NEXT)
    except OSError as error:
        (folder / _NEXT).unlink(missing_ok=True)
        raise PromotionFailed(number, error.strerror) from error


def delete_version(folder: Path, number: int) -> None:
    """Delete a version, whose number is not used again. The folder must be locked. Raises OSError.

    The marker of its upload stays, so that a job that is run again finds that its version was deleted.
    """
    deleted = folder / deleted_name(number)
    try:
        replace_file(deleted, (_upload_of(folder, number) or "").encode())
    except OSError:
        deleted.touch()  # also on a full disk, because deletions make room
    sync_folder(folder)
    (folder / file_name(number)).unlink(missing_ok=True)


def remove_empty(folder: Path) -> None:
    """Remove the folder of a model that has no version and never had one."""
    with contextlib.suppress(OSError):
        if {entry.name for entry in folder.iterdir()} <= {UPLOADS}:
            for marker in (folder / UPLOADS).iterdir():
                marker.unlink()
            (folder / UPLOADS).rmdir()
    with contextlib.suppress(OSError):
        folder.rmdir()


def _is_used(folder: Path, number: int) -> bool:
    path = folder / file_name(number)
    return os.path.lexists(path) or os.path.lexists(folder / deleted_name(number))


def _uploads_of_cards(folder: Path) -> Iterator[tuple[int, str]]:
    """Yield the versions that were published for an upload, newest first."""
    names = os.listdir(folder)  # noqa: PTH208 - only the names
    for number in sorted((found for name in names if (found := number_of(name)) is not None), reverse=True):
        if (upload := _upload_of(folder, number)) is not None:
            yield number, upload


def _upload_of(folder: Path, number: int) -> str | None:
    with contextlib.suppress(ModelFileInvalid, FileNotFoundError):
        return read_card(folder / file_name(number)).upload
    return None


def _text(path: Path) -> str | None:
    """Return the text of a file, or None if it cannot be read or is empty."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text() or None
    return None


def last_of_deleted(models: Path, model: str) -> int:
    """Return the last number that deleted models of this name used; 0 if there are none.

    Raises ModelFileInvalid if the record has no number; OSError.
    """
    try:
        text = (models / DELETED / model / _LAST_OF_DELETED).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return 0
    if not (text.isascii() and text.strip().isdigit()):
        raise ModelFileInvalid(
            f'{DELETED}/{model}/{_LAST_OF_DELETED} has no number. Write the last one that "{model}" used.'
        )
    return int(text)


def delete_model(models: Path, model: str, last: int) -> None:
    """Delete a model whose last number is `last`. The caller holds the lock of its folder.

    Raises OSError if the model is not deleted.
    """
    records = models / DELETED / model
    records.mkdir(parents=True, exist_ok=True)
    newest = target_of(models / model / UPLOADS / _LAST)
    upload = None if newest is None else _upload_of(models / model, newest)
    with contextlib.suppress(OSError):  # on a full disk
        replace_file(records / _UPLOAD_OF_DELETED, (upload or "").encode())  # only the last job may run again
    replace_file(records / _LAST_OF_DELETED, b"%d\n" % last)
    for folder in (records, records.parent, models):
        sync_folder(folder)
    place = records / f"{last:06d}"
    _remove(place)  # leftovers of an earlier deletion of this model, if it was restored from a copy since
    failpoint("deletion_prepared")
    (models / model).rename(place)
    failpoint("deleted")
    for folder in (records, models):
        sync_folder(folder)
    with contextlib.suppress(OSError):  # `sweep_deleted` removes the rest
        _remove(place)


def sweep_deleted(models: Path) -> None:
    """Remove the files of deleted models that a crash has left."""
    for place in models.glob(f"{DELETED}/*/*"):
        if place.name.isdigit():
            with contextlib.suppress(OSError):
                _remove(place)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
