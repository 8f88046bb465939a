"""Checkpoints: the file from which an interrupted gradient descent resumes.

With a store, each state is also put there, so that a trainer on another machine can resume the descent.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from app.errors import StoreUnavailable
from app.failpoints import failpoint
from app.regression.solvers.base import TrainingState
from app.storage.folder import durable_file
from app.storage.store import BlobNotFound, Store
from app.training.progress import LossCurve
from app.training.uploads import is_old

SAVE_SECONDS = 1.0  # least time between two saved states
PREFIX = "checkpoints/"  # Keys of checkpoints in the store.

_log = logging.getLogger(__name__)


class _Record(msgspec.Struct):
    state: TrainingState
    curve: list[tuple[int, float]]
    stride: int
    form: Literal[3]  # 3: the state has these fields. 2: losses include the penalty of weight_decay.
    start: int | None = None
    columns: tuple[str, ...] | None = None  # None in a record from before columns were noted


class SavedRun(NamedTuple):
    """A run to resume: its last saved state, and its losses up to then."""

    state: TrainingState
    curve: LossCurve


class Checkpoint:
    """One job's file, replaced as a whole at most once a second. In JSON, Python's floats survive to the last bit."""

    start: int | None = None  # number of the version that the descent started from, if it did; read by `load`

    def __init__(self, path: Path, columns: tuple[str, ...] = (), store: Store | None = None) -> None:
        """`columns` are those of the coefficients. A run with other columns is not resumed."""
        self._path = path
        self._columns = columns
        self._saved = time.monotonic()
        self._copy = None if store is None else _Copy(store, PREFIX + path.name)

    def save(self, state: TrainingState, curve: LossCurve) -> None:
        """Save this state, unless the last saved one is younger than SAVE_SECONDS."""
        if time.monotonic() - self._saved < SAVE_SECONDS:
            return
        record = _Record(state, curve.points, curve.stride, 3, self.start, self._columns)
        content = msgspec.json.encode(record, enc_hook=np.ndarray.tolist)
        self._saved = time.monotonic()
        temporary = self._path.with_suffix(".tmp")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with durable_file(temporary) as file:
                failpoint("checkpoint_opened")
                file.write(content)
            temporary.rename(self._path)
        except OSError as error:
            # The descent continues on a full disk. Only a crash now would lose the epochs since the last saved state.
            _log.warning("checkpoint not saved", extra={"reason": error.strerror})
        if self._copy is not None:
            self._copy.put(content)

    def load(self) -> SavedRun | None:
        """Return the last saved run. None if there is none, or if its columns or its format are others.

        Raises StoreUnavailable.
        """
        contents = [] if self._copy is None else [self._copy.get()]
        with contextlib.suppress(FileNotFoundError):
            contents.append(self._path.read_bytes())
        records = [record for content in contents if (record := self._decoded(content)) is not None]
        if not records:
            return None
        record = max(records, key=lambda record: record.state.epoch)  # Another trainer may have gone further.
        self.start = record.start
        return SavedRun(record.state, LossCurve(record.curve, record.stride))

    def _decoded(self, content: bytes) -> _Record | None:
        try:
            record = msgspec.json.decode(content, type=_Record, dec_hook=_array)
        except msgspec.DecodeError:
            return None
        return record if record.columns in (None, self._columns) else None


class _Copy:
    """The checkpoint in a store. It is put there in a thread, because a slow store would slow the descent down."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key
        self._putting: threading.Thread | None = None

    def put(self, content: bytes) -> None:
        """Put this content, unless the one before is still under way."""
        if self._putting is None or not self._putting.is_alive():
            self._putting = threading.Thread(target=self._put, args=(content,), name="checkpoint", daemon=True)
            self._putting.start()

    def _put(self, content: bytes) -> None:
        try:
            self._store.put(self._key, content)
        except StoreUnavailable as error:
            _log.warning("checkpoint not saved", extra={"reason": error.message})

    def get(self) -> bytes:
        try:
            return self._store.get(self._key).content
        except BlobNotFound:
            return b""


def remove_checkpoint(path: Path, store: Store | None) -> None:
    """Remove a job's checkpoint. If the store is unavailable, a later sweep removes it there."""
    path.unlink(missing_ok=True)
    if store is not None:
        with contextlib.suppress(StoreUnavailable):
            store.delete(PREFIX + path.name)


def sweep_checkpoints(store: Store, unfinished: Collection[str]) -> None:
    """Remove old checkpoints of other jobs than the unfinished ones from the store. Raises StoreUnavailable."""
    for blob in store.list_blobs(PREFIX):
        if Path(blob.key).stem not in unfinished and is_old(blob):
            store.delete(blob.key)


def _array(_: type, value: Any) -> Any:
    return np.array(value, dtype=np.float64)
