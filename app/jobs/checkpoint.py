"""Where an interrupted gradient descent goes on."""

import logging
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from app.jobs.tracker import LossCurve
from app.regression.gradient_descent import Descent

SAVE_SECONDS = 1.0

_log = logging.getLogger(__name__)


class _Saved(msgspec.Struct):
    epoch: int
    weights: list[list[float]]
    intercept: list[float]
    weight_velocity: list[list[float]]
    intercept_velocity: list[float]
    loss: float
    first_loss: float
    watched: float
    best_epoch: int
    best_watched: float
    best_loss: float
    best_weights: list[list[float]]
    best_intercept: list[float]
    curve: list[tuple[int, float]]
    stride: int


class Checkpoint:
    """One job's file, replaced as a whole at most once a second. JSON: Python's floats survive it to the last bit."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saved = time.monotonic()

    def save(self, state: Descent, curve: LossCurve) -> None:
        """Keep this state, unless the last one kept is younger than a second."""
        if time.monotonic() - self._saved < SAVE_SECONDS:
            return
        plain = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in vars(state).items()}
        content = msgspec.json.encode(_Saved(**plain, curve=curve.points, stride=curve.stride))
        self._saved = time.monotonic()
        temporary = self._path.with_suffix(".tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(self._path)
        except OSError as error:
            # A full disk is no reason to stop descending; only a crash now would cost the epochs since the last one.
            _log.warning("checkpoint not saved", extra={"reason": error.strerror})

    def load(self) -> tuple[Descent, LossCurve] | None:
        """The newest state, or None where none was kept or it is not readable: the job then starts anew."""
        try:
            saved: dict[str, Any] = msgspec.structs.asdict(msgspec.json.decode(self._path.read_bytes(), type=_Saved))
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        curve = LossCurve(saved.pop("curve"), saved.pop("stride"))
        arrays = {key: np.array(value, dtype=np.float64) for key, value in saved.items() if isinstance(value, list)}
        return Descent(**(saved | arrays)), curve

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)
