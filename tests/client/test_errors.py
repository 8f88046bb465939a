"""Problems become errors of the class that they name, with the places of the faults."""

import inspect
import pickle
import re

import pytest

import app.errors
import linserve
from app.exchange.pickles import REFUSED
from linserve import errors
from linserve.errors import (
    Detail,
    InvalidInput,
    JobFailed,
    Problem,
    ServiceError,
    error_from_problem,
    problem_from_json,
)


def problem(kind: str, status: int = 422, detail: str = "Wrong.", **rest: object) -> Problem:
    return problem_from_json({"type": f"urn:linserve:problem:{kind}", "status": status, "detail": detail, **rest})


def test_every_error_of_the_service_has_a_class_with_its_name_and_ancestors() -> None:
    for name, theirs in vars(app.errors).items():
        if isinstance(theirs, type) and issubclass(theirs, app.errors.LinserveError) and name != "LinserveError":
            ancestors = [made.__name__ for made in theirs.__mro__ if made.__module__ == "app.errors"]
            ours = getattr(errors, name, None)
            assert ours is not None, name
            known = [made.__name__ for made in ours.__mro__]
            assert [made for made in ancestors if made not in known and made != "FieldError"] == [], name


@pytest.mark.parametrize(
    ("kind", "status", "made"),
    [
        ("model-not-found", 404, errors.ModelNotFound),
        ("spool-full", 507, errors.SpoolFull),
        ("invalid-input", 422, errors.InvalidInput),
        ("of-a-later-version", 422, errors.InvalidInput),
        ("of-a-later-version", 418, errors.ServiceError),
        ("method-not-allowed", 405, errors.ServiceError),
    ],
)
def test_the_kind_of_a_problem_decides_and_otherwise_the_status(
    kind: str, status: int, made: type[ServiceError]
) -> None:
    assert type(error_from_problem(problem(kind, status))) is made


def test_the_text_names_each_place_once() -> None:
    place = {"row": 3, "column": "rainfall", "detail": "Expected a number, found text."}
    named = problem("invalid-input", detail='Row 3, column "rainfall": Expected a number, found text.', errors=[place])
    unnamed = problem("invalid-input", detail="Expected a number, found text.", errors=[place])
    several = problem("invalid-input", detail="Two faults.", errors=[place, {"detail": "Too long.", "parameter": "x"}])

    assert str(named) == 'Row 3, column "rainfall": Expected a number, found text.'
    assert str(unnamed) == "Expected a number, found text. (row 3, column 'rainfall')"
    assert str(several) == (
        "Two faults.\n  row 3, column 'rainfall': Expected a number, found text.\n  parameter 'x': Too long."
    )


def test_an_error_has_the_places_and_the_id_of_the_request() -> None:
    error = error_from_problem(
        problem("invalid-input", errors=[{"detail": "x", "pointer": "/a"}], request_id="r-1"), 2.0
    )

    assert isinstance(error, InvalidInput)
    assert error.details == (Detail("x", pointer="/a"),)
    assert (error.status, error.request_id, error.retry_after) == (422, "r-1", 2.0)
    assert error.problem.as_dict() == {
        "type": "urn:linserve:problem:invalid-input",
        "title": "",
        "status": 422,
        "detail": "Wrong.",
        "errors": [{"detail": "x", "pointer": "/a"}],
        "request_id": "r-1",
    }


@pytest.mark.parametrize(
    ("pointer", "row", "column"),
    [
        ("/instances/3/rainfall", 4, "rainfall"),
        ("/instances/0", 1, None),
        ("/instances/1/a~1b~0c~01", 2, "a/b~c~1"),
        ("/instances/1/", 2, ""),
        ("/instances/1/2", 2, None),
        ("/instances/1/x/0", 2, "x"),
        ("/instances", None, None),
        ("/instances/-/x", None, None),
        ("/instances/1x", None, None),
        ("/targets/1", None, None),
        ("/terms/instances/1", None, None),
    ],
)
def test_a_pointer_into_rows_gives_the_row_and_the_column(pointer: str, row: int | None, column: str | None) -> None:
    made = problem("invalid-input", detail=f"1 fault. {pointer}: x", errors=[{"detail": "x", "pointer": pointer}])

    assert made.details == (Detail("x", pointer=pointer, row=row, column=column),)
    assert str(made) == f"1 fault. {pointer}: x"


@pytest.mark.parametrize(
    "error",
    [error_from_problem(problem("conflict", 409), 1.0), JobFailed("j", problem("diverged")), errors.JobCancelled("j")],
)
def test_errors_can_be_pickled(error: errors.LinserveError) -> None:
    copied = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own error

    assert (type(copied), str(copied), copied.problem) == (type(error), str(error), error.problem)


def test_the_call_that_a_refused_pickle_suggests_has_the_arguments_in_the_order_of_the_client() -> None:
    call = re.search(r"import_model\((\w+), (\w+)\)", REFUSED)
    assert call is not None
    bound = inspect.signature(linserve.Client.import_model).bind(None, *call.groups()).arguments
    assert (bound["source"], bound["model"]) == ("ESTIMATOR", "MODEL")
