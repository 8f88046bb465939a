"""Initial coefficients that a caller sent. They are stored in a file next to the rows, to keep the record small."""

import dataclasses
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from app.data.batch import Array
from app.errors import Unavailable
from app.regression.solvers import GradientDescent, Start
from app.training.request import TrainingRequest


def detach(request: TrainingRequest) -> tuple[TrainingRequest, Array | None]:
    """Return the request without its initial coefficients, and these, (k, p + 1) with the intercept last, or None."""
    solver = request.solver
    if not isinstance(solver, GradientDescent) or not isinstance(solver.start, Start) or solver.start.weights is None:
        return request, None
    assert solver.start.intercept is not None
    coefficients = np.column_stack([solver.start.weights, solver.start.intercept]).astype(np.float64)
    return _with_start(request, solver, Start(uploaded=True)), coefficients


def write(file: BinaryIO, coefficients: Array) -> None:
    """Write initial coefficients as `attach` reads them."""
    np.save(file, coefficients, allow_pickle=False)


def attach(request: TrainingRequest, path: Path) -> TrainingRequest:
    """Return the request with the initial coefficients in the file. Raises Unavailable if the file is missing."""
    solver = request.solver
    if not isinstance(solver, GradientDescent) or not isinstance(solver.start, Start) or not solver.start.uploaded:
        return request
    try:
        coefficients = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise Unavailable("The weights that this job starts from are not in the trainer's state folder.") from error
    start = Start(weights=coefficients[:, :-1].tolist(), intercept=coefficients[:, -1].tolist())
    return _with_start(request, solver, start)


def _with_start(request: TrainingRequest, solver: GradientDescent, start: Start) -> TrainingRequest:
    return dataclasses.replace(request, solver=msgspec.structs.replace(solver, start=start))
