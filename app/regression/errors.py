"""Errors of the mathematics.

They know rows, columns and options, but no request: callers translate them to places in what they received.

FitError
├── InvalidData             the rows, or their weights, cannot be used
│   ├── NotIncluded         rows to take out that the statistics do not contain
│   └── ColumnOutOfRange    a column whose unit is too small or too large for 64-bit numbers
│       ├── ValuesTooLarge
│       └── ValuesTooSmall
├── InvalidTerms            terms that cannot be made from the features
├── InvalidOption           an option of a solver that does not suit the rows
├── PredictionTooLarge      a prediction outside the range of 64-bit numbers
├── Diverged                gradient descent diverged
├── InaccurateCoefficients  coefficients that rounding has changed too much
├── StatisticsUnknown       a model that came without the summary of its training rows
└── DeviceUnavailable       no device of the requested type
"""

from collections.abc import Sequence
from typing import NamedTuple

NO_ROWS = "There are no rows to train on. Send at least one."


class FitError(ValueError):
    """Root of the tree. The message is for the person who sent the rows: it contains none of their values."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidData(FitError):
    pass


class NotIncluded(InvalidData):
    pass


class ColumnOutOfRange(InvalidData):
    """`column` is the index of the first such column among the columns of features and the targets."""

    fault = "has values that cannot be computed with. Use other units."

    def __init__(self, column: int) -> None:
        super().__init__(f"Column {column + 1} {self.fault}")
        self.column = column


class ValuesTooLarge(ColumnOutOfRange):
    fault = (
        "has values too large: their differences, or the coefficients that they lead to, exceed the range of 64-bit "
        "numbers. Use larger units."
    )


class ValuesTooSmall(ColumnOutOfRange):
    fault = (
        "has values too small: their differences, or the coefficients that they lead to, leave the range in which "
        "64-bit numbers have all their digits. Use smaller units."
    )


class TermFault(NamedTuple):
    term_index: int
    message: str


class InvalidTerms(FitError):
    """`faults` has one entry for each invalid term."""

    def __init__(self, faults: Sequence[TermFault]) -> None:
        super().__init__("Not all terms can be made from the features.")
        self.faults = tuple(faults)


class InvalidOption(FitError):
    """`option` is the name of the solver's option."""

    def __init__(self, option: str, message: str) -> None:
        super().__init__(message)
        self.option = option


class PredictionTooLarge(FitError):
    """`row` is the index of the first such prediction, from 0."""

    def __init__(self, row: int) -> None:
        super().__init__(f"The prediction for row {row}, or an interval of it, is beyond the range of 64-bit numbers.")
        self.row = row


class Diverged(FitError):
    pass


class InaccurateCoefficients(FitError):
    pass


class StatisticsUnknown(FitError):
    def __init__(self) -> None:
        super().__init__("The model was imported without statistics.")


class DeviceUnavailable(FitError):
    pass
