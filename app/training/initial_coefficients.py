"""Coefficients to start from that a caller sent: a file next to the rows, because a record has to be short."""

from dataclasses import replace

import numpy as np

from app.errors import Unavailable
from app.regression.solvers import GradientDescent, Start
from app.training.request import TrainingRequest
from app.training.uploads import Uploads


def detach(request: TrainingRequest, uploads: Uploads) -> TrainingRequest:
    """Write such coefficients to their file, and return the request without them.

    The file is durable when this returns. It is removed with the rows.
    """
    solver = request.solver
    if not isinstance(solver, GradientDescent) or not isinstance(solver.start, Start) or solver.start.weights is None:
        return request
    assert solver.start.intercept is not None
    with uploads.open_new(uploads.start(request.upload)) as file:
        np.save(file, np.column_stack([solver.start.weights, solver.start.intercept]).astype(np.float64))
        uploads.sync(file)
    return replace(request, solver=replace(solver, start="random"), start_uploaded=True)


def attach(request: TrainingRequest, uploads: Uploads) -> TrainingRequest:
    """Return the request with its coefficients. Raises Unavailable if their file is gone."""
    if not request.start_uploaded:
        return request
    assert isinstance(request.solver, GradientDescent)
    try:
        matrix = np.load(uploads.path(uploads.start(request.upload)))  # (k, p + 1), the intercept last
    except (OSError, ValueError) as error:
        raise Unavailable("The weights that this job starts from are not in the trainer's state folder.") from error
    start = Start(weights=matrix[:, :-1].tolist(), intercept=matrix[:, -1].tolist())
    return replace(request, solver=replace(request.solver, start=start), start_uploaded=False)
