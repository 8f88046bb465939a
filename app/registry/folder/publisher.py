"""Changes of the models folder: publish, promote, delete, clean up."""

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Literal

from app.errors import Conflict, InvalidInput, ModelNotFound, Unavailable, VersionNotFound
from app.failpoints import failpoint
from app.permissions import why_denied
from app.registry.base import ParentChanged
from app.registry.folder import publication
from app.registry.folder.publication import UPLOADS, file_name
from app.registry.folder.reader import FolderReader
from app.registry.model_card import ModelCard
from app.registry.names import MODEL_NAME, MODEL_NAME_RULE, version_deleted
from app.registry.version_cache import CURRENT
from app.registry.version_file import Version, encode
from app.regression.linear_model import LinearModel
from app.regression.sufficient_statistics import SufficientStatistics
from app.storage.file_lock import FileLock
from app.storage.folder import durable_file, temporary_path

ORPHAN_SECONDS = 3600  # Age of a temporary file above which its publisher is taken for dead.

# Files and folders that are renamed once they are complete.
_TEMPORARY = ("*/.*.tmp", f"*/{UPLOADS}/.*.tmp", f"{publication.DELETED}/*/.*.tmp")


class FolderPublisher(FolderReader):
    """Reads and changes a models folder."""

    def find(self, model: str, upload: str) -> Version | None:
        """Return the version that was published for this upload, or None, after finishing its promotion.

        Raises Conflict if it was deleted; ModelFileInvalid if it is damaged; Unavailable.
        """
        if not re.fullmatch(MODEL_NAME, model):
            return None
        with self._reading():
            try:
                number = publication.published_for(self._folder / model, upload)
            except (FileNotFoundError, NotADirectoryError):
                if not self._folder.is_dir():  # the versions are unknown
                    raise
                return None
        if number is None:
            return None
        with self._locked(model):  # finishes what a killed publisher may have left
            return self._read_published(model, number)

    def publish(
        self,
        card: ModelCard,
        model: LinearModel,
        folds: Mapping[int, SufficientStatistics] | None = None,
        *,
        promote: bool = False,
        expected: int | Literal["any"] | None = "any",
    ) -> Version:
        """Write a new version under the next free number, which replaces the card's, and promote it if asked.

        If `expected` is a number, `current` must name it, and no version if it is None; the same lock covers the
        comparison and the publication. A version that replaces all rows and has no parent gets the current version as
        its parent. An upload is published once: a second call returns its version.

        Raises ParentChanged if another version is current, Conflict if the upload's version was deleted,
        ModelFileInvalid if it is damaged, PromotionFailed if it is published only, Unavailable if the
        folder cannot be written.
        """
        if not re.fullmatch(MODEL_NAME, card.model):
            raise InvalidInput.at("/model", MODEL_NAME_RULE)
        folder = self._folder / card.model
        card = replace(card, promoted=promote)
        with _writing(), _temporary_file(folder) as temporary:
            numbered = _completed(card, folder)
            _write(temporary, encode(numbered, model, folds))  # not under the lock: a wide model takes a while
            with self._locked(card.model):
                if (published := self._published_for(card)) is not None:
                    return published
                if expected != "any" and self.current_number(card.model) != expected:
                    raise ParentChanged
                publication.prepare_markers(folder)
                while True:
                    written, numbered = numbered, _completed(card, folder)
                    if numbered != written:
                        _write(temporary, encode(numbered, model, folds))
                    with contextlib.suppress(FileExistsError):  # a process that takes no lock took the number
                        publication.link_version(
                            folder, temporary, numbered.version, upload=card.upload, promote=promote
                        )
                        return Version(numbered, model)

    def promote(self, model: str, number: int, check: Callable[[], None] = lambda: None) -> None:
        """Make a version current, for every process at its next request.

        `check` is called first, while nobody else promotes or deletes, and may raise. Raises ModelNotFound,
        VersionNotFound, ModelFileInvalid if the file is damaged, Unavailable if the folder cannot be written.
        """
        self.path(model, number)
        with self._locked(model) as folder:
            check()
            self._read(model, number)
            next_link = temporary_path(folder)
            next_link.symlink_to(file_name(number))
            try:
                publication.make_current(next_link)
            except OSError:
                next_link.unlink(missing_ok=True)
                raise

    def delete(self, model: str, number: int) -> None:
        """Remove a version for good. Its number is not used again.

        Raises ModelNotFound, VersionNotFound; Conflict for the current version and the one served; Unavailable.
        """
        self.path(model, number)
        with self._locked(model) as folder:
            if self.current_number(model) == number:
                raise Conflict(f'Version {number} is the current version of "{model}". Promote another one first.')
            if self.served_number(model) == number:
                raise Conflict(f"Version {number} is served in place of the current one. Promote another one first.")
            publication.delete_version(folder, number)
        self._cache.drop((model, number))

    def delete_model(self, model: str, check: Callable[[], None] = lambda: None) -> None:
        """Remove a model with all its versions. Their numbers are not used again.

        `check` is called first, while nobody else promotes or deletes, and may raise. Raises ModelNotFound;
        Unavailable if the folder cannot be written.
        """
        self.versions(model)
        with self._locked(model) as folder:
            self.versions(model)
            check()
            numbers = [number for number, _ in self._files(model)]
            publication.delete_model(self._folder, model, max(*numbers, publication.free_number(folder) - 1))
        for number in (CURRENT, *numbers):
            self._cache.drop((model, number))

    def sweep(self) -> None:
        """Remove old temporary files of killed publishers, and files of deleted models."""
        before = time.time() - ORPHAN_SECONDS
        for temporary in chain.from_iterable(map(self._folder.glob, _TEMPORARY)):
            with contextlib.suppress(OSError):
                if temporary.lstat().st_mtime < before:
                    shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink()
        publication.sweep_deleted(self._folder)

    def _published_for(self, card: ModelCard) -> Version | None:
        if card.upload is None:
            return None
        number = publication.published_for(self._folder / card.model, card.upload)
        return None if number is None else self._read_published(card.model, number)

    def _read_published(self, model: str, number: int) -> Version:
        """Return a version that was published. Raises ModelFileInvalid; Conflict if it was deleted just now."""
        try:
            return self._read(model, number)
        except VersionNotFound:
            raise version_deleted(model, number) from None

    @contextlib.contextmanager
    def _locked(self, model: str) -> Iterator[Path]:
        """Lock the model's folder for the block against publications, promotions and deletions elsewhere.

        Raises ModelNotFound if the previous holder of the lock deleted the model.
        """
        folder = self._folder / model
        with _writing(), contextlib.closing(FileLock(folder, os.O_RDONLY)) as lock:
            try:
                lock.acquire()
            except FileNotFoundError:
                if not self._folder.is_dir():  # the models are unknown
                    raise
                raise ModelNotFound(f'There is no model "{model}". It was deleted just now.') from None
            publication.complete(folder)
            yield folder
            os.fsync(lock.fileno())


@contextlib.contextmanager
def _temporary_file(folder: Path) -> Iterator[Path]:
    """Yield the path of a version's file that has no number yet. At the end, it and an empty folder are removed."""
    folder.mkdir(exist_ok=True)  # no parents: if the models folder is missing, all other models are too
    temporary = temporary_path(folder)
    try:
        yield temporary
    except BaseException:
        temporary.unlink(missing_ok=True)
        publication.remove_empty(folder)
        raise
    temporary.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    with durable_file(path) as file:
        file.write(content)
        failpoint("temp_written")
    failpoint("fsynced")


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(why_denied(error) or f"The models folder cannot be written: {error.strerror}.") from error


def _completed(card: ModelCard, folder: Path) -> ModelCard:
    """Return the card with the next free number, and with the current version as its parent if it has to name one."""
    parent = publication.target_of(folder / "current")
    fills_in = card.mode == "replace" and card.parent is None
    return replace(card, version=publication.free_number(folder), parent=parent if fills_in else card.parent)
