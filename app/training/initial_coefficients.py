"""Weights to start from that a caller sent: they wait in the spool beside the rows, for a record has to stay short."""

import dataclasses

import msgspec
import numpy as np

from app.errors import Unavailable
from app.jobs.uploads import UploadStore
from app.regression.solvers import GradientDescent, Start
from app.training.request import TrainingRequest


def detach(request: TrainingRequest, spool: UploadStore) -> TrainingRequest:
    """The request without such weights. They outlive a power cut when this returns, and go when the rows go."""
    solver = request.solver
    if not isinstance(solver, GradientDescent) or not isinstance(solver.start, Start) or solver.start.weights is None:
        return request
    assert solver.start.intercept is not None
    with spool.open_new(spool.start(request.upload)) as file:
        np.save(file, np.column_stack([solver.start.weights, solver.start.intercept]).astype(np.float64))
        spool.sync(file)
    return _with_start(request, solver, Start(uploaded=True))


def attach(request: TrainingRequest, spool: UploadStore) -> TrainingRequest:
    """The request as it came. Raises Unavailable where its weights are gone."""
    solver = request.solver
    if not isinstance(solver, GradientDescent) or not isinstance(solver.start, Start) or not solver.start.uploaded:
        return request
    try:
        found = np.load(spool.path(spool.start(request.upload)))  # (k, p + 1), the intercept last
    except (OSError, ValueError) as error:
        raise Unavailable("The weights that this job starts from are not in the trainer's state folder.") from error
    start = Start(weights=found[:, :-1].tolist(), intercept=found[:, -1].tolist())
    return _with_start(request, solver, start)


def _with_start(request: TrainingRequest, solver: GradientDescent, start: Start) -> TrainingRequest:
    return dataclasses.replace(request, solver=msgspec.structs.replace(solver, start=start))
