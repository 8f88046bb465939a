"""The models folder.

    models/crop-yield/000001.safetensors      one immutable file a version
    models/crop-yield/000002.deleted          a number that was used and is never used again
    models/crop-yield/current -> 000001.safetensors

Any number of processes, on any number of machines that share the folder, may read and write at once: a version's
number is taken by an exclusive link, and `current` is replaced by a rename, so that each is there whole or not at all.
"""

import contextlib
import errno
import fcntl
import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from app.errors import Conflict, InvalidInput, ModelFileInvalid, ModelNotFound, Unavailable, VersionNotFound
from app.failpoints import reach
from app.registry.loaded import Loaded
from app.registry.model_card import ModelCard
from app.registry.names import MODEL_NAME, MODEL_NAME_RULE
from app.registry.version_file import Version, encode, open_file, read, read_card, read_folds
from app.regression.linear_model import LinearModel
from app.regression.sufficient_statistics import SufficientStatistics

MAX_VERSION = 10**12
LOADED_BYTES = 64 << 20  # of versions besides the current ones; each is a few kB unless the model is wide

SMALL_BYTES = 256 << 10  # of a file that is read in less than a millisecond

TELL_SECONDS = 10.0  # between two lines that say that the folder cannot be read

NO_LINK = ""  # what a `current` points to that is a file or a folder
_FILE = re.compile(r"(\d{6,12})\.(safetensors|deleted)")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Current:
    link: str  # what `current` pointed to
    version: Version
    damaged: tuple[int, int] | None = None  # the file it points to, if that is not what is served: size and time


class Registry:
    """Reads and writes a models folder, and keeps what it loaded."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._current: dict[str, _Current] = {}
        self._reading_current = threading.Lock()
        self._loaded = Loaded(LOADED_BYTES)
        self._told_unreadable = -TELL_SECONDS
        self._told: dict[str, tuple[str, tuple[int, int]]] = {}  # what is damaged, and in the log already
        self._told_closed: set[str] = set()

    def models(self) -> list[str]:
        """Names of the models that have a current version, sorted. Raises Unavailable."""
        with self._reading():
            names = os.listdir(self._folder)  # noqa: PTH208 - names are all that is wanted
            return sorted(name for name in names if re.fullmatch(MODEL_NAME, name) and self._has_current(name))

    def versions(self, model: str) -> list[int]:
        """Numbers of the versions there are, ascending. Raises ModelNotFound where there is none."""
        found = sorted(number for number, kind in self._files(model) if kind == "safetensors")
        if not found:
            raise _no_model(model)
        return found

    def at_hand(self, model: str, number: int | None = None) -> Version | None:
        """The current version, or the one of that number, if it can be had without holding up an event loop.

        Nothing is read where nothing changed, which costs one `readlink` or `stat`; after a promotion a small file is,
        sooner than a thread would. None where `current` or `version` has more to do. Raises what they do.
        """
        if number is not None:
            self.path(model, number)
            return self._loaded.get((model, number))
        cached = self._current.get(model)
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
        on too. Raises ModelNotFound; ModelFileInvalid where no version is intact; Unavailable.
        """
        if (version := self.at_hand(model)) is not None:
            return version
        if not re.fullmatch(MODEL_NAME, model):
            raise _no_model(model)
        with self._reading_current:  # one thread, while others wait for what it reads
            return self._read_current(model)

    def _read_current(self, model: str) -> Version:
        cached = self._current.get(model)
        try:
            link = str((self._folder / model / "current").readlink())
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR) and self._folder.is_dir():
                if self._current.pop(model, None) is not None:
                    _log.warning("model vanished", extra={"model": model})
                raise _no_model(model) from None
            if error.errno != errno.EINVAL:
                fault = self._unreadable(error)
                if cached is None:
                    raise fault from None
                return cached.version
            link = NO_LINK
        if cached and cached.link == link and (not cached.damaged or cached.damaged == self._state_of(model, link)):
            return cached.version
        # One reference is swapped: a request under way keeps the version it began with.
        self._current[model] = found = self._intact(model, link, cached)
        return found.version

    def version(self, model: str, number: int) -> Version:
        """Any version. Raises ModelNotFound, VersionNotFound, ModelFileInvalid."""
        return self.at_hand(model, number) or self._loaded.get_or_read(
            (model, number), lambda: self._read(model, number)
        )

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
        """The number `current` points to, or None where no version was promoted."""
        if not re.fullmatch(MODEL_NAME, model):
            return None
        try:
            match = _FILE.fullmatch((self._folder / model / "current").readlink().name)
        except OSError:
            return None
        return int(match[1]) if match else None

    def served_number(self, model: str) -> int | None:
        """The number of the version that `current` answers with, or None where there is none. Raises Unavailable."""
        try:
            return self.current(model).card.version
        except (ModelNotFound, ModelFileInvalid):
            return None

    def find(self, model: str, upload: str) -> Version | None:
        """The version that was published for this upload, if one was."""
        numbers = sorted((number for number, kind in self._files(model) if kind == "safetensors"), reverse=True)
        for number in numbers:
            with contextlib.suppress(ModelFileInvalid, FileNotFoundError, VersionNotFound):
                if read_card(self._path(model, number)).upload == upload:
                    return self._read(model, number)
        return None

    def folds(self, model: str, number: int) -> dict[int, SufficientStatistics]:
        """The statistics of a version's folds, which are not kept in memory; none if it has none stored.

        Raises as `version` does.
        """
        try:
            return read_folds(self.path(model, number))
        except FileNotFoundError:
            raise _no_version(model, number) from None

    def publish(
        self, card: ModelCard, model: LinearModel, folds: Mapping[int, SufficientStatistics] | None = None
    ) -> Version:
        """Write a new version under the next free number, whatever the card's says. It is not promoted.

        An upload is published once: asked again, its version is returned. Raises Unavailable where the
        folder cannot be written.
        """
        if not re.fullmatch(MODEL_NAME, card.model):
            raise InvalidInput.at("/model", MODEL_NAME_RULE)
        if card.upload is not None and (published := self.find(card.model, card.upload)):
            return published
        folder = self._folder / card.model
        try:
            with _writing():
                folder.mkdir(exist_ok=True)  # in a models folder that is not there, all others would be missing
                temporary = folder / f".{uuid.uuid4().hex}.tmp"
                try:
                    return self._link(folder, temporary, card, model, folds)
                finally:
                    temporary.unlink(missing_ok=True)
        finally:
            with contextlib.suppress(OSError):
                folder.rmdir()  # a new model whose first version failed leaves nothing

    def _link(
        self,
        folder: Path,
        temporary: Path,
        card: ModelCard,
        model: LinearModel,
        folds: Mapping[int, SufficientStatistics] | None,
    ) -> Version:
        while True:
            # A copy of the folder may point to a version that it lacks; another of its number would be served at once.
            pointed_to = self.current_number(card.model) or 0
            number = max((number for number, _ in self._files(card.model)), default=0)
            number = max(number, pointed_to) + 1
            numbered = replace(card, version=number)
            _write_durably(temporary, encode(numbered, model, folds))
            try:
                os.link(temporary, self._path(card.model, number))
            except FileExistsError:
                continue  # another publisher took the number
            reach("linked")
            _sync_folder(folder)
            return Version(numbered, model)

    def promote(self, model: str, number: int, check: Callable[[], None] = lambda: None) -> None:
        """Make a version current, for every process at its next request.

        `check` is called first, while nobody else promotes or deletes, and may raise. Raises ModelNotFound,
        VersionNotFound, ModelFileInvalid where the file is damaged, Unavailable where the folder cannot be written.
        """
        self.path(model, number)
        with self._changing(model) as folder:
            check()
            self._read(model, number)
            temporary = folder / f".{uuid.uuid4().hex}.tmp"
            temporary.symlink_to(self._path(model, number).name)
            try:
                temporary.rename(folder / "current")
                reach("promoted")
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
            _sync_folder(folder)
            path.unlink(missing_ok=True)
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
        """Remove what publishers left behind that were killed an hour ago or earlier."""
        before = time.time() - 3600
        for temporary in self._folder.glob("*/.*.tmp"):
            with contextlib.suppress(OSError):
                if temporary.lstat().st_mtime < before:
                    temporary.unlink()

    def _intact(self, model: str, link: str, cached: _Current | None) -> _Current:
        match = _FILE.fullmatch(link)
        number = int(match[1]) if match and match[2] == "safetensors" else 0
        state = self._state_of(model, link)
        try:
            if link == NO_LINK:  # as a copy has it that followed the links
                raise VersionNotFound("`current` is not a link to a version. Promote one.")
            return _Current(link, self._read(model, number))
        except (VersionNotFound, ModelFileInvalid) as error:
            fault = ModelFileInvalid(
                f'The current version of "{model}" is missing or damaged, and so are all before it.'
            )
            if self._told.get(model) != (link, state):  # once, not with every request
                self._told[model] = link, state
                _log.error("version refused", extra={"model": model, "version": number, "reason": str(error)})
        if cached is not None:
            return _Current(link, cached.version, state)
        older = (found for found, kind in self._files(model) if kind == "safetensors" and found < number)
        for candidate in sorted(older, reverse=True):
            with contextlib.suppress(VersionNotFound, ModelFileInvalid):
                return _Current(link, self._read(model, candidate), state)
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

    @contextlib.contextmanager
    def _changing(self, model: str) -> Iterator[Path]:
        """The model's folder, while no other process promotes or deletes in it."""
        folder = self._folder / model
        with _writing():
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
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
        if now - self._told_unreadable > TELL_SECONDS:
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
                if not self._folder.is_dir():  # then nobody knows what there is
                    raise
                return
        for name in names:
            if match := _FILE.fullmatch(name):
                yield int(match[1]), match[2]

    def _has_current(self, model: str) -> bool:
        try:
            os.lstat(f"{self._folder}/{model}/current")
        except PermissionError as error:
            if model not in self._told_closed:  # once, not with every list
                self._told_closed.add(model)
                _log.warning("model not read", extra={"model": model, "reason": str(error)})
            return False
        except OSError:
            return False
        return True

    def _path(self, model: str, number: int) -> Path:
        return self._folder / model / f"{number:06d}.safetensors"


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


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"The models folder cannot be written: {error.strerror}.") from error


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        reach("temp_written")
        file.flush()
        os.fsync(file.fileno())
    reach("fsynced")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
