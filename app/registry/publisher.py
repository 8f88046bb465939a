"""The models folder.

    models/crop-yield/000001.safetensors      one immutable file a version
    models/crop-yield/000002.deleted          a number that was used and is never used again
    models/crop-yield/current -> 000001.safetensors
    models/.deleted/line/last                 the last number of a model that was deleted

Any number of processes, on any number of machines that share the folder, may read and write at once: a version's
number is taken by an exclusive link, and `current` is replaced by a rename, so that each is there whole or not at all.
"""

import contextlib
import errno
import fcntl
import logging
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Literal

from app.errors import (
    Conflict,
    InvalidInput,
    ModelFileInvalid,
    ModelNotFound,
    NoCurrentVersion,
    Unavailable,
    VersionNotFound,
)
from app.failpoints import failpoint
from app.permissions import why_denied
from app.registry import deleted_models, publication
from app.registry.model_card import ModelCard
from app.registry.names import MODEL_NAME, MODEL_NAME_RULE
from app.registry.publication import UPLOADS, VERSION_FILE, ParentChanged, file_name
from app.registry.version_cache import Cache, memory_of
from app.registry.version_file import Version, encode, open_file, read, read_folds
from app.regression.linear_model import LinearModel
from app.regression.sufficient_statistics import SufficientStatistics
from app.storage.folder import sync_folder

MAX_VERSION = 10**12
CACHED_BYTES = 64 << 20  # of versions in memory; each takes some kB unless the model is wide

MAX_LISTED = 10  # versions, in a message

SMALL_BYTES = 256 << 10  # of a file that is read in less than a millisecond

LOG_INTERVAL_SECONDS = 10.0  # between two lines that say that the folder cannot be read

# Files and folders that are renamed once they are complete.
_TEMPORARY = ("*/.*.tmp", f"*/{UPLOADS}/.*.tmp", f"{deleted_models.FOLDER}/*/.*.tmp")

CURRENT = 0  # the number under which current versions are cached
NO_LINK = ""  # what a `current` points to that is a file or a folder
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Loaded:
    link: str  # what `current` pointed to, if this is the current version
    version: Version
    damaged: tuple[int, int] | None = None  # the file it points to, if that is not what is served: size and time


class ModelPublisher:
    """Reads and writes a models folder, and keeps what it loaded."""

    def __init__(self, folder: Path, *, cached_bytes: int = CACHED_BYTES, kept: str | None = None) -> None:
        """Keep `cached_bytes` of versions in memory, and in any case the current one of the model `kept`."""
        self._folder = folder
        # By model and number; the current ones have the number CURRENT.
        self._loaded: Cache[tuple[str, int], _Loaded] = Cache(
            cached_bytes, lambda found: memory_of(found.version), (kept, CURRENT) if kept else None
        )
        self._reading_current = threading.Lock()
        self._told_unreadable = -LOG_INTERVAL_SECONDS
        self._told: dict[str, tuple[str, tuple[int, int]]] = {}  # what is damaged, and in the log already
        self._told_closed: set[str] = set()

    def models(self) -> list[str]:
        """Names of the models that have a version, current or not, sorted. Raises Unavailable."""
        with self._reading():
            names = os.listdir(self._folder)  # noqa: PTH208 - names are all that is wanted
            return sorted(name for name in names if re.fullmatch(MODEL_NAME, name) and self._is_model(name))

    def versions(self, model: str) -> list[int]:
        """Return the numbers of all versions, ascending. Raises ModelNotFound if there are none."""
        found = sorted(number for number, kind in self._files(model) if kind == "safetensors")
        if not found:
            raise _no_model(model)
        return found

    def get_cached(self, model: str, number: int | None = None) -> Version | None:
        """The current version, or the one of that number, if it can be had without holding up an event loop.

        Nothing is read where nothing changed, which costs one `readlink` or `stat`; after a promotion a small file is,
        sooner than a thread would. None where `current` or `version` has more to do. Raises what they do.
        """
        if number is not None:
            self.path(model, number)
            return found.version if (found := self._loaded.get((model, number))) else None
        cached = self._loaded.get((model, CURRENT))
        if cached is None:
            return None
        try:
            link = os.readlink(f"{self._folder}/{model}/current")  # noqa: PTH115 - a third of the time of Path's
        except OSError:
            link = NO_LINK
        if cached.link == link and not cached.damaged:
            return cached.version
        if self._state_of(model, link)[0] > SMALL_BYTES or not self._reading_current.acquire(blocking=False):
            return None
        try:
            return self._read_current(model)
        finally:
            self._reading_current.release()

    def current(self, model: str) -> Version:
        """The promoted version. One `readlink` when nothing changed, so that a promotion is seen at once.

        Where the promoted file is damaged, the version served before goes on, and failing that the newest
        intact one below it, until the file changes. While the folder cannot be read, the version served before goes
        on too. A version that was evicted from memory counts as not served before. Raises ModelNotFound,
        NoCurrentVersion; ModelFileInvalid where no version is intact; Unavailable.
        """
        if (version := self.get_cached(model)) is not None:
            return version
        if not re.fullmatch(MODEL_NAME, model):
            raise _no_model(model)
        with self._reading_current:  # one thread, while others wait for what it reads
            return self._read_current(model)

    def _read_current(self, model: str) -> Version:
        cached = self._loaded.get((model, CURRENT))
        try:
            link = str((self._folder / model / "current").readlink())
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR) and self._folder.is_dir():
                if self._loaded.drop((model, CURRENT)):
                    _log.warning("model vanished", extra={"model": model})
                listed = ", ".join(map(str, self.versions(model)[-MAX_LISTED:]))
                raise NoCurrentVersion(
                    f'Model "{model}" has no current version; promote one. Its versions: {listed}.'
                ) from None
            if error.errno != errno.EINVAL:
                fault = self._unreadable(error)
                if cached is None:
                    raise fault from None
                return cached.version
            link = NO_LINK
        if cached and cached.link == link and (not cached.damaged or cached.damaged == self._state_of(model, link)):
            return cached.version
        # One reference is swapped: a request under way keeps the version it began with.
        found = self._intact(model, link, cached)
        self._loaded.put((model, CURRENT), found)
        return found.version

    def version(self, model: str, number: int) -> Version:
        """Any version. Raises ModelNotFound, VersionNotFound, ModelFileInvalid."""
        if (version := self.get_cached(model, number)) is not None:
            return version
        return self._loaded.get_or_read((model, number), lambda: _Loaded("", self._read(model, number))).version

    def path(self, model: str, number: int) -> Path:
        """The version's file. Raises ModelNotFound, VersionNotFound."""
        path = self._path(model, number)
        with self._reading():
            exists = bool(re.fullmatch(MODEL_NAME, model)) and 0 < number < MAX_VERSION and path.is_file()
        if not exists:
            self.versions(model)
            raise _no_version(model, number)
        return path

    def current_number(self, model: str) -> int | None:
        """Return the number that `current` points to, or None if no version was promoted."""
        if not re.fullmatch(MODEL_NAME, model):
            return None
        return publication.target_of(self._folder / model / "current")

    def served_number(self, model: str) -> int | None:
        """Return the number of the version that is served as current, or None. Raises Unavailable."""
        try:
            return self.current(model).card.version
        except (ModelNotFound, ModelFileInvalid):
            return None

    def find(self, model: str, upload: str) -> Version | None:
        """Return the version that was published for this upload, or None, after finishing its promotion.

        Raises Unavailable.
        """
        if not re.fullmatch(MODEL_NAME, model):
            return None
        with self._reading():
            try:
                number = publication.published_for(self._folder / model, upload)
            except (FileNotFoundError, NotADirectoryError):
                if not self._folder.is_dir():  # then the versions are unknown
                    raise
                return None
        if number is None:
            return None
        with self._changing(model):  # which finishes what its publisher may have left
            return self._read_if_intact(model, number)

    def folds(self, model: str, number: int) -> dict[int, SufficientStatistics]:
        """The statistics of a version's folds, which are not kept in memory; none if it has none stored.

        Raises as `version` does.
        """
        try:
            return read_folds(self.path(model, number))
        except FileNotFoundError:
            raise _no_version(model, number) from None

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

        If a number is `expected`, `current` must name it, and no version if that is None; it is compared in the same
        act. A version that replaces all rows and has no parent gets the current version as its parent. An upload is
        published once: asked again, its version is returned.

        Raises ParentChanged if another version is current, PromotionFailed if it is published only, Unavailable if the
        folder cannot be written.
        """
        if not re.fullmatch(MODEL_NAME, card.model):
            raise InvalidInput.at("/model", MODEL_NAME_RULE)
        folder = self._folder / card.model
        card = replace(card, promoted=promote)
        with _writing():
            folder.mkdir(exist_ok=True)  # no parents: if the models folder is missing, all other models are too
            temporary = folder / f".{uuid.uuid4().hex}.tmp"
            try:
                # Written before the lock is taken, because a wide model takes a while: most often all of it holds.
                written = _completed(card, folder)
                _write_durably(temporary, encode(written, model, folds))
                with self._changing(card.model):
                    if (published := self._published_for(card)) is not None:
                        return published
                    if expected != "any" and self.current_number(card.model) != expected:
                        raise ParentChanged
                    publication.prepare_markers(folder)
                    while True:
                        numbered = _completed(card, folder)
                        if numbered != written:
                            written = numbered
                            _write_durably(temporary, encode(written, model, folds))
                        with contextlib.suppress(FileExistsError):  # somebody who takes no lock took the number
                            publication.link_version(
                                folder, temporary, written.version, upload=card.upload, promote=promote
                            )
                            return Version(written, model)
            except BaseException:
                temporary.unlink(missing_ok=True)
                publication.remove_empty(folder)  # a new model whose first version failed leaves nothing
                raise
            finally:
                temporary.unlink(missing_ok=True)

    def _published_for(self, card: ModelCard) -> Version | None:
        if card.upload is None:
            return None
        number = publication.published_for(self._folder / card.model, card.upload)
        return None if number is None else self._read_if_intact(card.model, number)

    def promote(self, model: str, number: int, check: Callable[[], None] = lambda: None) -> None:
        """Make a version current, for every process at its next request.

        `check` is called first, while nobody else promotes or deletes, and may raise. Raises ModelNotFound,
        VersionNotFound, ModelFileInvalid where the file is damaged, Unavailable if the folder cannot be written.
        """
        self.path(model, number)
        with self._changing(model) as folder:
            check()
            self._read(model, number)
            temporary = folder / f".{uuid.uuid4().hex}.tmp"
            temporary.symlink_to(file_name(number))
            try:
                publication.make_current(temporary)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise

    def delete(self, model: str, number: int) -> None:
        """Remove a version for good; its number is not used again.

        Raises ModelNotFound, VersionNotFound; Conflict for the current version and the one served; Unavailable.
        """
        path = self.path(model, number)
        with self._changing(model) as folder:
            if self.current_number(model) == number:
                raise Conflict(f'Version {number} is the current version of "{model}". Promote another one first.')
            if self.served_number(model) == number:
                raise Conflict(f"Version {number} is served in place of the current one. Promote another one first.")
            path.with_suffix(".deleted").touch()
            sync_folder(folder)
            publication.remove_marker(folder, number)
            path.unlink(missing_ok=True)
        self._loaded.drop((model, number))

    def delete_model(self, model: str, check: Callable[[], None] = lambda: None) -> None:
        """Remove a model with all its versions; their numbers are not used again.

        `check` is called first, while nobody else promotes or deletes, and may raise. Raises ModelNotFound;
        Unavailable if the folder cannot be written.
        """
        self.versions(model)
        with self._changing(model) as folder:
            self.versions(model)
            check()
            numbers = [number for number, _ in self._files(model)]
            deleted_models.move(self._folder, model, max(*numbers, publication.free_number(folder) - 1))
        self._loaded.drop((model, CURRENT))
        for number in numbers:
            self._loaded.drop((model, number))

    def file(self, model: str, number: int) -> BinaryIO:
        """The version's file as it is, for the caller to close; a version that is deleted can be read to its end.

        Raises ModelNotFound, VersionNotFound, ModelFileInvalid.
        """
        try:
            return open_file(self.path(model, number))
        except FileNotFoundError:
            raise VersionNotFound(
                f'Model "{model}" has no version {number}. GET /models/{_shown(model)} lists its versions.'
            ) from None

    def sweep(self) -> None:
        """Remove files of publishers that were killed an hour ago or earlier, and files of deleted models."""
        before = time.time() - 3600
        for temporary in chain.from_iterable(map(self._folder.glob, _TEMPORARY)):
            with contextlib.suppress(OSError):
                if temporary.lstat().st_mtime < before:
                    shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink()
        deleted_models.sweep(self._folder)

    def _intact(self, model: str, link: str, cached: _Loaded | None) -> _Loaded:
        match = VERSION_FILE.fullmatch(link)
        number = int(match[1]) if match and match[2] == "safetensors" else 0
        state = self._state_of(model, link)
        try:
            if link == NO_LINK:  # as a copy has it that followed the links
                raise VersionNotFound("`current` is not a link to a version. Promote one.")
            return _Loaded(link, self._read(model, number))
        except (VersionNotFound, ModelFileInvalid) as error:
            fault = ModelFileInvalid(f'No version of "{model}" can be served. {error.message}')
            if self._told.get(model) != (link, state):  # once, not with every request
                self._told[model] = link, state
                _log.error("version refused", extra={"model": model, "version": number, "reason": str(error)})
        if cached is not None:
            return _Loaded(link, cached.version, state)
        older = (found for found, kind in self._files(model) if kind == "safetensors" and found < number)
        for candidate in sorted(older, reverse=True):
            with contextlib.suppress(VersionNotFound, ModelFileInvalid):
                return _Loaded(link, self._read(model, candidate), state)
        raise fault

    def _state_of(self, model: str, link: str) -> tuple[int, int]:
        try:
            found = (self._folder / model / link).stat()
        except OSError:
            return 0, 0
        return found.st_size, found.st_mtime_ns

    def _read(self, model: str, number: int) -> Version:
        """The version from its file. Its place says what it is called, so that a copied model has its own name."""
        try:
            found = read(self._path(model, number))
        except FileNotFoundError:
            raise VersionNotFound(
                f'Model "{model}" has no version {number}. GET /models/{_shown(model)} lists its versions.'
            ) from None
        return replace(found, card=replace(found.card, model=model, version=number))

    def _read_if_intact(self, model: str, number: int) -> Version | None:
        with contextlib.suppress(ModelFileInvalid, VersionNotFound):
            return self._read(model, number)
        return None

    @contextlib.contextmanager
    def _changing(self, model: str) -> Iterator[Path]:
        """Lock the model's folder for the block against publications, promotions and deletions elsewhere.

        Raises ModelNotFound if the model was deleted by whoever held the lock before.
        """
        folder = self._folder / model
        with _writing():
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if not _is_at(descriptor, folder):
                    raise ModelNotFound(f'There is no model "{model}". It was deleted just now.')
                publication.complete(folder)
                yield folder
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> Unavailable:
        now = time.monotonic()
        if now - self._told_unreadable > LOG_INTERVAL_SECONDS:
            self._told_unreadable = now
            _log.error("models folder not read", extra={"folder": str(self._folder), "reason": str(error)})
        return Unavailable(f"The models folder cannot be read: {error.strerror}.")

    def _files(self, model: str) -> Iterator[tuple[int, str]]:
        if not re.fullmatch(MODEL_NAME, model):
            return
        with self._reading():
            try:
                names = os.listdir(self._folder / model)  # noqa: PTH208 - as above
            except (FileNotFoundError, NotADirectoryError):
                if not self._folder.is_dir():  # then the versions are unknown
                    raise
                return
        for name in names:
            if match := VERSION_FILE.fullmatch(name):
                yield int(match[1]), match[2]

    def _is_model(self, model: str) -> bool:
        try:
            os.lstat(f"{self._folder}/{model}/current")
        except FileNotFoundError:
            with contextlib.suppress(ModelNotFound, Unavailable):
                return bool(self.versions(model))
            return False
        except PermissionError as error:
            if model not in self._told_closed:  # once, not with every list
                self._told_closed.add(model)
                _log.warning("model not read", extra={"model": model, "reason": str(error)})
            return False
        except OSError:
            return False
        return True

    def _path(self, model: str, number: int) -> Path:
        return self._folder / model / file_name(number)


def _no_model(model: str) -> ModelNotFound:
    rule = "" if re.fullmatch(MODEL_NAME, model) else f" {MODEL_NAME_RULE}"
    return ModelNotFound(f'There is no model "{_shown(model)}".{rule} GET /models lists the models.')


def _no_version(model: str, number: int) -> VersionNotFound:
    return VersionNotFound(
        f'Model "{_shown(model)}" has no version {number}. GET /models/{_shown(model)} lists its versions.'
    )


def _shown(model: str) -> str:
    # A name that no model can have may be anything; it is not repeated to the caller.
    return model if re.fullmatch(MODEL_NAME, model) else "..."


def _is_at(descriptor: int, folder: Path) -> bool:
    """Return True if the open folder still has this path."""
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(why_denied(error) or f"The models folder cannot be written: {error.strerror}.") from error


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        failpoint("temp_written")
        file.flush()
        os.fsync(file.fileno())
    failpoint("fsynced")


def _completed(card: ModelCard, folder: Path) -> ModelCard:
    """The card with the number that is free, and with the current version as its parent if it has to state one."""
    parent = publication.target_of(folder / "current")
    fills_in = card.mode == "replace" and card.parent is None
    return replace(card, version=publication.free_number(folder), parent=parent if fills_in else card.parent)
