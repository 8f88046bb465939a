"""Coefficients that a descent starts from: those that a caller sent, or those of a version.

The caller's are in a file next to the rows, because the record of a job has to be short.
"""

from dataclasses import replace

import numpy as np

from app.errors import InvalidInput, Unavailable
from app.registry.version_file import Version
from app.regression.solvers import GradientDescent, Start
from app.training.parent import has_columns_of
from app.training.request import TrainingRequest
from app.training.uploads import UploadStore


def detach(request: TrainingRequest, uploads: UploadStore) -> TrainingRequest:
    """Write the caller's coefficients to their file, and return the request without them.

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


def attach(request: TrainingRequest, uploads: UploadStore) -> TrainingRequest:
    """Return the request with the caller's coefficients. Raises Unavailable if their file is gone, and as `fetch`."""
    if not request.start_uploaded:
        return request
    assert isinstance(request.solver, GradientDescent)
    path = uploads.fetch(uploads.start(request.upload))
    try:
        matrix = np.load(path)  # (k, p + 1), the intercept last
    except (OSError, ValueError) as error:
        raise Unavailable("The weights that this job starts from are not in the trainer's state folder.") from error
    start = Start(weights=matrix[:, :-1].tolist(), intercept=matrix[:, -1].tolist())
    return replace(request, solver=replace(request.solver, start=start), start_uploaded=False)


def check_start_columns(version: Version, request: TrainingRequest, pointer: str) -> None:
    """Raise InvalidInput if a descent cannot start from the version, because its columns are others."""
    if not has_columns_of(version, request):
        number = version.card.version
        raise InvalidInput.at(pointer, f"Version {number} has other features, terms or targets than these rows.")
