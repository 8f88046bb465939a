"""Where an interrupted gradient descent goes on."""

import logging
import time
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from app.failpoints import failpoint
from app.jobs.progress import LossCurve
from app.regression.solvers.gradient_descent import TrainingState
from app.storage.folder import durable_file

SAVE_SECONDS = 1.0

_log = logging.getLogger(__name__)


class _Saved(msgspec.Struct):
    state: TrainingState
    curve: list[tuple[int, float]]
    stride: int
    form: Literal[3]  # 3: the fields have these names. 2: losses include the penalty of weight_decay.
    start: int | None = None


class Checkpoint:
    """One job's file, replaced as a whole at most once a second. JSON: Python's floats survive it to the last bit."""

    start: int | None = None  # the current version that the descent began from, if it did; read by `load`

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saved = time.monotonic()

    def save(self, state: TrainingState, curve: LossCurve) -> None:
        """Keep this state, unless the last one kept is younger than a second."""
        if time.monotonic() - self._saved < SAVE_SECONDS:
            return
        content = msgspec.json.encode(
            _Saved(state, curve.points, curve.stride, 3, self.start), enc_hook=np.ndarray.tolist
        )
        self._saved = time.monotonic()
        temporary = self._path.with_suffix(".tmp")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with durable_file(temporary) as file:
                failpoint("checkpoint_opened")
                file.write(content)
            temporary.rename(self._path)
        except OSError as error:
            # A full disk is no reason to stop descending; only a crash now would cost the epochs since the last one.
            _log.warning("checkpoint not saved", extra={"reason": error.strerror})

    def load(self) -> tuple[TrainingState, LossCurve] | None:
        """Return the newest state, or None if there is none, it is unreadable, or its form is another.

        The job then starts anew.
        """
        try:
            saved = msgspec.json.decode(self._path.read_bytes(), type=_Saved, dec_hook=_array)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        self.start = saved.start
        return saved.state, LossCurve(saved.curve, saved.stride)

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def _array(_: type, value: Any) -> Any:
    return np.array(value, dtype=np.float64)
