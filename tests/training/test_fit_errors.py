"""Errors of the mathematics as a client gets them."""

import pytest

from app import errors
from app.errors import FieldError, InvalidInput, LinserveError
from app.regression.errors import (
    ColumnOutOfRange,
    DeviceUnavailable,
    Diverged,
    FitError,
    InaccurateCoefficients,
    InvalidData,
    InvalidOption,
    InvalidTerms,
    NotIncluded,
    TermFault,
    ValuesTooLarge,
    ValuesTooSmall,
)
from app.training.fit_errors import fit_errors_translated

COLUMNS = ("temp", "rainfall", "apples")


def translated(error: FitError) -> LinserveError:
    with pytest.raises(LinserveError) as raised, fit_errors_translated(COLUMNS):
        raise error
    return raised.value


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InvalidData("No rows."), InvalidInput),
        (NotIncluded("Not there."), InvalidInput),
        (Diverged("Diverged."), errors.Diverged),
        (DeviceUnavailable("No device."), errors.DeviceUnavailable),
        (InaccurateCoefficients("Inaccurate."), errors.TrainingFailed),
    ],
)
def test_an_error_without_a_place_keeps_its_message(error: FitError, expected: type[LinserveError]) -> None:
    found = translated(error)
    assert type(found) is expected
    assert (found.message, found.details) == (error.message, ())


@pytest.mark.parametrize(
    ("error", "expected"),
    [(ValuesTooLarge(2), errors.ValuesTooLarge), (ValuesTooSmall(2), errors.ValuesTooSmall)],
)
def test_a_column_out_of_range_is_named(error: ColumnOutOfRange, expected: type[LinserveError]) -> None:
    found = translated(error)
    assert type(found) is expected
    assert found.message == f'Column "apples" {error.fault}'
    assert found.details == (FieldError(found.message, column="apples"),)


def test_an_option_and_terms_are_pointed_to() -> None:
    found = translated(InvalidOption("validation_fraction", "Too large."))
    assert found.details == (FieldError("Too large.", pointer="/solver/validation_fraction"),)
    found = translated(InvalidTerms([TermFault(1, "Not a term."), TermFault(4, "Twice.")]))
    assert found.details == (FieldError("Not a term.", "/terms/1"), FieldError("Twice.", "/terms/4"))


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), fit_errors_translated():
        raise ZeroDivisionError
