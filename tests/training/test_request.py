"""Records of training requests, of this format and of older ones."""

from typing import Any

import pytest

from app.data.columns.options import ColumnOptions, ReadingOptions
from app.data.columns.schema import LeftOut
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


def record_2(solver: Solver, **fields: Any) -> dict[str, Any]:
    """A record of format 2 of a request with this solver and these fields."""
    plain = request(solver).to_json()
    del plain["reading"], plain["named"], plain["left_out"]
    return {**plain, "missing": "refuse", "header": None, "record_format": 2, **fields}


def record_1(**descent: Any) -> dict[str, Any]:
    """A record of format 1 of a gradient descent with these options."""
    plain = record_2(GradientDescent())
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


def test_a_record_of_format_2_keeps_its_policy_for_gaps_its_header_and_its_features() -> None:
    read = TrainingRequest.from_json(record_2(Exact(), header="none"))
    assert read.reading == ReadingOptions(header="none", missing="refuse")
    assert TrainingRequest.from_json(record_2(Exact(), missing="drop")).reading == ReadingOptions(missing="drop")
    assert (read.named, read.chosen, read.record_format) == (True, frozenset({"a"}), RECORD_FORMAT)
    assert not TrainingRequest.from_json(record_2(Exact(), features=[])).named


def test_the_options_of_columns_are_recorded() -> None:
    columns = {"a": ColumnOptions(kind="category", reference="x"), "b": ColumnOptions(fill=2.5)}
    reading = ReadingOptions(sep=";", na=("-",), missing="indicator", drop=("c",), sheet=2, columns=columns)
    written = request(Exact(), reading=reading, left_out=(LeftOut("c", "drop"),))
    assert TrainingRequest.from_json(written.to_json()) == written
    assert written.chosen == {"a", "b"}
