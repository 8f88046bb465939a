"""The copy of all models from one place to another.

It may be interrupted and repeated at any time: what is there already is compared and not copied again, and nothing that
differs is overwritten. A model's versions become visible in a store with its pointer, which is written last.
"""

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

from app.errors import ModelFileInvalid
from app.migration.places import MigrationFailed, ModelState, Place
from app.registry.model_card import ModelCard
from app.registry.version_file import FileContent, read, read_card
from app.storage.store import BlobChanged, BlobNotFound

PROGRESS_SECONDS = 1.0  # Interval between two lines of progress of one model.
WORKERS = 8  # Versions copied at a time.
LARGE = 8 << 20  # Length of a version's file, in bytes, above which only one is copied at a time.
ATTEMPTS = 3  # Attempts at a model that is changed in the source meanwhile.


def migrate(source: Place, target: Place, report: Callable[[str], None] = print) -> None:
    """Copy all models. Raises MigrationFailed, LinserveError, OSError."""
    models = source.models()
    if not models:
        raise MigrationFailed(f"There are no models in {source.name}.")
    copied = sum(_Model(source, target, model, report).copy() for model in models)
    report(f"Models in {target.name}: {len(models)}. Versions copied: {copied}. All were compared with their copies.")


class _Model:
    """The copy of one model."""

    def __init__(self, source: Place, target: Place, model: str, report: Callable[[str], None]) -> None:
        self._source, self._target, self._model, self._report = source, target, model, report
        self._uploads: dict[str, int] = {}
        self._lock, self._one_large = threading.Lock(), threading.Lock()
        self._copied = self._compared = 0
        self._reported = time.monotonic()

    def copy(self) -> int:
        """Return the number of versions that were not there before."""
        for _ in range(ATTEMPTS):
            state = self._source.state(self._model)
            if state is None:  # a folder without a version
                return 0
            self._check(state)
            self._compared = 0
            for batch in _batches(state.versions, self._target.parallel):
                self._copy_batch(batch, len(state.versions))
            if not self._is_finished(state):
                self._target.finish(self._model, state, self._uploads)
            if self._source.state(self._model) == state:
                self._verify(state)
                self._report(
                    f"{self._model}: {self._compared} of {len(state.versions)} versions, {self._copied} copied"
                )
                return self._copied
        raise MigrationFailed(f'"{self._model}" keeps changing in {self._source.name}. Stop trainings first.')

    def _check(self, state: ModelState) -> None:
        """Raise MigrationFailed if the target has anything that this copy would change."""
        before = self._target.state(self._model)
        if before is None:
            return
        if more := set(before.versions).difference(state.versions):
            self._refuse(f"has version {min(more)}, which is not in {self._source.name}")
        if deleted := before.deleted_of(state.versions):
            self._refuse(f"had a version {min(deleted)}, which was deleted there")
        if before.versions == state.versions and before.current not in (None, state.current):
            self._refuse(
                f"has version {before.current} as the current one, and {self._source.name} has {state.current}: "
                "promote the same version in both"
            )

    def _refuse(self, fault: str) -> NoReturn:
        raise MigrationFailed(f'"{self._model}" in {self._target.name} {fault}. This model was not changed.')

    def _is_finished(self, state: ModelState) -> bool:
        before = self._target.state(self._model)
        return before is not None and before.agrees(state)

    def _verify(self, state: ModelState) -> None:
        after = self._target.state(self._model)
        if after is None or (after.current, after.versions) != (state.current, state.versions):
            raise MigrationFailed(f'"{self._model}" was changed in {self._target.name} meanwhile. Migrate again.')

    def _copy_batch(self, numbers: Sequence[int], total: int) -> None:
        if len(numbers) == 1:
            self._copy_version(numbers[0], total)
            return
        with ThreadPoolExecutor(WORKERS) as pool:
            for _ in pool.map(lambda number: self._copy_version(number, total), numbers):
                pass

    def _copy_version(self, number: int, total: int) -> None:
        """Copy a version unless it is there, and compare the copy with it."""
        size = self._source.size(self._model, number)
        with self._one_large if size and size > LARGE else contextlib.nullcontext():
            try:
                content = self._source.read(self._model, number)
            except (FileNotFoundError, BlobNotFound):
                raise MigrationFailed(f"{self._source.path(self._model, number)} is missing.") from None
            is_there = self._target.size(self._model, number) is not None
            if not is_there:
                with contextlib.suppress(FileExistsError, BlobChanged):  # the comparison shows it
                    self._target.write(self._model, number, content)
            digest = hashlib.sha256(content).hexdigest()
            if hashlib.sha256(self._target.read(self._model, number)).hexdigest() != digest:
                raise MigrationFailed(
                    f"{self._target.path(self._model, number)} differs from {self._source.path(self._model, number)}. "
                    "Nothing was overwritten."
                )
            self._note(number, content, total, copied=not is_there)

    def _note(self, number: int, content: bytes, total: int, *, copied: bool) -> None:
        upload = None
        try:
            upload = read(FileContent(content, self._source.path(self._model, number), self._card)).card.upload
        except ModelFileInvalid as error:
            self._report(f"Warning: {error.message} It was copied as it is.")
        with self._lock:
            if upload is not None:
                self._uploads[upload] = max(number, self._uploads.get(upload, 0))
            self._copied += copied
            self._compared += 1
            if time.monotonic() - self._reported > PROGRESS_SECONDS:
                self._reported = time.monotonic()
                self._report(f"{self._model}: {self._compared} of {total} versions, {self._copied} copied")

    def _card(self, number: int) -> ModelCard | None:
        with contextlib.suppress(ModelFileInvalid, FileNotFoundError, BlobNotFound):
            content = self._source.read(self._model, number)
            return read_card(FileContent(content, self._source.path(self._model, number)))
        return None


def _batches(versions: Sequence[int], parallel: bool) -> Iterator[Sequence[int]]:
    """Yield the versions in groups that may be copied in any order.

    In a folder, each version is visible at once, and a version below the newest one would count as deleted.
    """
    size = 1000 if parallel else 1
    for start in range(0, len(versions), size):
        yield versions[start : start + size]
