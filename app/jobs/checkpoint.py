"""Where an interrupted gradient descent goes on."""

import contextlib
import os
import time
from pathlib import Path

import msgspec
import numpy as np

from app.jobs.tracker import LossCurve
from app.regression.gradient_descent import Descent

SAVE_SECONDS = 1.0


class _Saved(msgspec.Struct):
    state: dict[str, int | float | list[float] | list[list[float]]]
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
        content = msgspec.json.encode(_Saved(plain, curve.points, curve.stride))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self._path)
        self._saved = time.monotonic()

    def load(self) -> tuple[Descent, LossCurve] | None:
        """The newest state, or None where none was kept or it is not readable: the job then starts anew."""
        with contextlib.suppress(FileNotFoundError, msgspec.DecodeError, TypeError):
            saved = msgspec.json.decode(self._path.read_bytes(), type=_Saved)
            state = {
                key: np.array(value, dtype=np.float64) if isinstance(value, list) else value
                for key, value in saved.state.items()
            }
            return Descent(**state), LossCurve(saved.curve, saved.stride)  # type: ignore[arg-type]
        return None

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)
