"""Checkpoints: the file from which an interrupted gradient descent resumes."""

import logging
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from app.failpoints import failpoint
from app.regression.solvers.base import TrainingState
from app.storage.folder import durable_file
from app.training.progress import LossCurve

SAVE_SECONDS = 1.0  # least time between two saved states

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

    def __init__(self, path: Path, columns: tuple[str, ...] = ()) -> None:
        """`columns` are those of the coefficients. A run with other columns is not resumed."""
        self._path = path
        self._columns = columns
        self._saved = time.monotonic()

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

    def load(self) -> SavedRun | None:
        """Return the last saved run. None if there is none, or if its columns or its format are others."""
        try:
            record = msgspec.json.decode(self._path.read_bytes(), type=_Record, dec_hook=_array)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        if record.columns is not None and record.columns != self._columns:
            return None
        self.start = record.start
        return SavedRun(record.state, LossCurve(record.curve, record.stride))


def _array(_: type, value: Any) -> Any:
    return np.array(value, dtype=np.float64)
