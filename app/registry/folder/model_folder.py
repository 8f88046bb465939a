"""The names in a models folder.

    models/crop-yield/000001.safetensors      one immutable file per version
    models/crop-yield/000002.deleted          a number that was used and is never used again
    models/crop-yield/current -> 000001.safetensors
    models/.deleted/line/last                 the last number of a model that was deleted

Any number of processes, on any number of machines that share the folder, may read and write at once. A version gets its
number by an exclusive link, and `current` is replaced by a rename, so that each is complete or absent.
"""

import contextlib
import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from app.errors import ModelNotFound, Unavailable
from app.registry.folder import publication
from app.registry.folder.publication import VERSION_FILE, file_name
from app.registry.names import MODEL_NAME, no_model, no_version

MAX_VERSION = 10**12
LOG_INTERVAL_SECONDS = 10.0  # Interval between two records of an unreadable folder.

_log = logging.getLogger(__name__)


class ModelFolder:
    """Lists the models and versions in a folder, without reading them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unreadable_logged = -LOG_INTERVAL_SECONDS
        self._denied_logged: set[str] = set()

    def models(self) -> list[str]:
        """Return the names of the models that have a version, current or not, sorted. Raises Unavailable."""
        with self._reading():
            names = os.listdir(self._folder)  # noqa: PTH208 - only the names
            return sorted(name for name in names if re.fullmatch(MODEL_NAME, name) and self._is_model(name))

    def versions(self, model: str) -> list[int]:
        """Return the numbers of all versions, ascending. Raises ModelNotFound if there are none."""
        numbers = sorted(number for number, kind in self._files(model) if kind == "safetensors")
        if not numbers:
            raise no_model(model)
        return numbers

    def path(self, model: str, number: int) -> Path:
        """Return the version's file. Raises ModelNotFound, VersionNotFound."""
        path = self._path(model, number)
        with self._reading():
            exists = bool(re.fullmatch(MODEL_NAME, model)) and 0 < number < MAX_VERSION and path.is_file()
        if not exists:
            self.versions(model)
            raise no_version(model, number)
        return path

    def current_number(self, model: str) -> int | None:
        """Return the number that `current` points to, or None if no version was promoted."""
        if not re.fullmatch(MODEL_NAME, model):
            return None
        return publication.target_of(self._folder / model / "current")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> Unavailable:
        now = time.monotonic()
        if now - self._unreadable_logged > LOG_INTERVAL_SECONDS:
            self._unreadable_logged = now
            _log.error("models folder not read", extra={"folder": str(self._folder), "reason": str(error)})
        return Unavailable(f"The models folder cannot be read: {error.strerror}.")

    def _files(self, model: str) -> Iterator[tuple[int, str]]:
        """Yield the number and the extension of each file that has a number. Raises Unavailable."""
        if not re.fullmatch(MODEL_NAME, model):
            return
        with self._reading():
            try:
                names = os.listdir(self._folder / model)  # noqa: PTH208 - only the names
            except (FileNotFoundError, NotADirectoryError):
                if not self._folder.is_dir():  # the versions are unknown
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
            if model not in self._denied_logged:  # once, not with every list
                self._denied_logged.add(model)
                _log.warning("model not read", extra={"model": model, "reason": str(error)})
            return False
        except OSError:
            return False
        return True

    def _path(self, model: str, number: int) -> Path:
        return self._folder / model / file_name(number)

    def _state_of(self, model: str, name: str) -> tuple[int, int]:
        """Return the size and time of a file; zeros if there is none."""
        try:
            status = (self._folder / model / name).stat()
        except OSError:
            return 0, 0
        return status.st_size, status.st_mtime_ns
