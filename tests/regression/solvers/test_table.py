"""The table of solvers: each entry is the schema of a request, the record of a job, and an algorithm."""

import json
from dataclasses import fields
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from pydantic import TypeAdapter, ValidationError

from app.regression.solvers import SOLVERS, Exact, GradientDescent, Solver, Start, solver_from_record, solver_to_record

GIVEN: list[Solver] = [
    Exact(l2=0.5, fit_intercept=False),
    GradientDescent(epochs=7, batch_size=3, start=Start(version=2)),
    GradientDescent(start=Start(weights=[[1.0, 2.0]], intercept=[3.0])),
    GradientDescent(start="current"),
]


@pytest.mark.parametrize("solver", [*GIVEN, *(solver() for solver in SOLVERS)])
def test_a_record_is_read_as_the_solver_that_wrote_it(solver: Solver) -> None:
    written = msgspec.json.encode(solver)
    assert msgspec.json.decode(written, type=Solver, dec_hook=solver_from_record) == solver
    assert solver_from_record(Solver, solver_to_record(solver)) == solver


def test_a_record_has_only_the_options_of_a_start_that_are_given() -> None:
    assert solver_to_record(GIVEN[1])["start"] == {"version": 2}


@pytest.mark.parametrize("record", [{}, {"kind": "newton"}, {"kind": "exact", "l2": "high"}])
def test_a_record_of_no_solver_is_refused(record: dict[str, Any]) -> None:
    with pytest.raises((ValueError, msgspec.ValidationError)):
        solver_from_record(Solver, record)


def test_kinds_are_distinct() -> None:
    assert len({solver().kind for solver in SOLVERS}) == len(SOLVERS)


@pytest.mark.parametrize("solver", SOLVERS)
def test_pydantic_takes_each_solver_as_it_is(solver: type[Solver]) -> None:
    adapter = TypeAdapter(solver)
    properties = adapter.json_schema()["properties"]
    hints = get_type_hints(solver, include_extras=True)
    assert set(properties) == {field.name for field in fields(solver)} <= set(hints)  # type: ignore[arg-type]
    assert "description" in properties["kind"]
    assert adapter.validate_json(json.dumps({"kind": solver().kind})) == solver()
    for wrong in ({"no_option": 1}, {"device": "tpu"}):
        with pytest.raises(ValidationError):
            adapter.validate_json(json.dumps(wrong))


def test_bounds_are_checked_by_pydantic() -> None:
    assert get_args(get_type_hints(Exact, include_extras=True)["l2"])
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        TypeAdapter(Exact).validate_json('{"l2": -1.0}')


def test_a_start_is_a_version_or_coefficients() -> None:
    for options in ({}, {"weights": [[1.0]]}, {"version": 1, "weights": [[1.0]], "intercept": [0.0]}):
        with pytest.raises(ValueError, match="Give either a version, or weights and intercept"):
            Start(**options)
