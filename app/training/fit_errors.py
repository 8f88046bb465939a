"""Translate errors of the mathematics to the service's errors, with places in a training request."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from app import errors
from app.errors import FieldError, InvalidInput, LinserveError
from app.regression.errors import (
    ColumnOutOfRange,
    DeviceUnavailable,
    Diverged,
    FitError,
    InaccurateCoefficients,
    InvalidOption,
    InvalidTerms,
    NotIncluded,
    ValuesTooLarge,
    ValuesTooSmall,
)
from app.training.parent import BaseVersion

# All others become InvalidInput.
_TRANSLATIONS: dict[type[FitError], type[LinserveError]] = {
    Diverged: errors.Diverged,
    DeviceUnavailable: errors.DeviceUnavailable,
    InaccurateCoefficients: errors.TrainingFailed,
    ValuesTooLarge: errors.ValuesTooLarge,
    ValuesTooSmall: errors.ValuesTooSmall,
}


@contextmanager
def fit_errors_translated(columns: Sequence[str] = (), base: BaseVersion | None = None) -> Iterator[None]:
    """Raise each FitError of the block as a LinserveError.

    `columns` names the model's columns, then its targets. `base` is the version that rows were to be taken out of.
    """
    try:
        yield
    except NotIncluded as error:
        message = error.message
        if base is not None and base.version.card.discounted:
            # Rows that the version has, with less weight than is taken out, look like rows that it does not have.
            message += (
                f" If they are, decay has left less than {base.share:g} of their weight; check `trained_in` or `share`."
            )
        raise InvalidInput(message) from error
    except FitError as error:
        raise _translated(error, columns) from error


def _translated(error: FitError, columns: Sequence[str]) -> LinserveError:
    if isinstance(error, InvalidTerms):
        places = [FieldError(fault.message, pointer=f"/terms/{fault.term_index}") for fault in error.faults]
        return InvalidInput(error.message, places)
    if isinstance(error, InvalidOption):
        return InvalidInput.at(f"/solver/{error.option}", error.message)
    error_type = _TRANSLATIONS.get(type(error), InvalidInput)
    if isinstance(error, ColumnOutOfRange):
        name = columns[error.column]
        message = f'Column "{name}" {error.fault}'
        return error_type(message, [FieldError(message, column=name)])
    return error_type(error.message)
