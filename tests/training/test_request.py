"""Records of training requests, of this format and of older ones."""

from typing import Any

import pytest

from app.regression.solvers import Exact, GradientDescent, Solver, Start
from app.training.request import RECORD_FORMAT, TrainingRequest


def request(solver: Solver, **options: Any) -> TrainingRequest:
    return TrainingRequest(
        model="m",
        upload="u",
        format="csv",
        features=("a",),
        targets=("y",),
        solver=solver,
        promote="always",
        fingerprint="f",
        **options,
    )


def record_1(**descent: Any) -> dict[str, Any]:
    """A record of format 1 of a gradient descent with these options."""
    plain = request(GradientDescent()).to_json()
    del plain["record_format"], plain["start_uploaded"]
    plain["solver"] = {"kind": "gradient_descent", "epochs": 5, **descent}
    return plain


@pytest.mark.parametrize(
    "solver",
    [
        Exact(l2=2.0),
        GradientDescent(start="current", patience=3),
        GradientDescent(start=Start(weights=[[1.0]], intercept=[2.0])),
    ],
)
def test_a_record_is_read_as_the_request_that_wrote_it(solver: Solver) -> None:
    written = request(solver, inherits=("l2",), start_uploaded=True)
    assert TrainingRequest.from_json(written.to_json()) == written


@pytest.mark.parametrize(
    ("start", "expected", "uploaded"),
    [
        ("random", "random", False),
        ({"version": 3}, Start(version=3), False),
        ({"current": True}, "current", False),
        ({"uploaded": True}, "random", True),
    ],
)
def test_the_start_of_a_record_of_format_1_is_migrated(start: Any, expected: Any, uploaded: bool) -> None:
    read = TrainingRequest.from_json(record_1(start=start, held_out=0.25))
    assert read.solver == GradientDescent(epochs=5, start=expected, validation_fraction=0.25)
    assert (read.start_uploaded, read.record_format) == (uploaded, RECORD_FORMAT)
