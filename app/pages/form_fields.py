"""The fields of the form for a prediction: one for each feature, with its range or levels in training."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, Literal, TypeAlias

import numpy as np

from app.data.columns.schema import Column
from app.data.json_faults import escaped
from app.errors import FieldError
from app.pages.charts.svg import number
from app.pages.coefficients import deviations
from app.registry.version_file import Version
from app.regression.terms import parse_terms

Control: TypeAlias = Literal["number", "date", "select", "text"]

MAX_FIELDS = 40  # Fields of a form. The other features have their example.
# Characters of all lists of a form in HTML. A category that has no room left gets a text field.
MAX_OPTIONS = 24_000
OPTION = 32  # Characters of an option besides its label.
MAX_TEXT = 1000  # Characters of a value.
ROWS = "/instances"  # Place of the rows in a request.

_EPOCH = date(1970, 1, 1)
_EXACT = 2**53  # Whole numbers below are exact in 64-bit numbers.
_DIGITS = 4  # Significant digits of an example.


@dataclass(frozen=True)
class FormField:
    """One feature, as the form shows it."""

    index: int  # of the feature
    name: str
    control: Control
    value: str
    options: tuple[tuple[str, str], ...] = ()  # values and labels of a list
    placeholder: str = ""
    hint: str = ""
    required: bool = True
    error: str | None = None

    @property
    def key(self) -> str:
        """Name of the field in the form, and the id of its element."""
        return f"f{self.index}"


@dataclass(frozen=True)
class FilledForm:
    """The fields with their values, the row that they make, and the faults that belong to no field."""

    fields: list[FormField]
    row: dict[str, Any]
    others: int  # features that have no field
    faults: tuple[str, ...] = ()

    @property
    def is_valid(self) -> bool:
        return not self.faults and all(field.error is None for field in self.fields)

    def with_faults(self, details: Sequence[FieldError], message: str) -> "FilledForm":
        """Return the form with the faults of a prediction next to their fields."""
        by_place = {f"{ROWS}/0/{escaped(field.name)}": field.key for field in self.fields}
        own = {by_place[detail.pointer]: detail.message for detail in details if detail.pointer in by_place}
        fields = [replace(field, error=own.get(field.key, field.error)) for field in self.fields]
        return replace(self, fields=fields, faults=() if own else (message,))


def example_form(version: Version) -> FilledForm:
    """Return the form with the means of the training rows, and with the reference levels."""
    return _form(version, None)


def sent_form(version: Version, values: Mapping[str, str]) -> FilledForm:
    """Return the form with the values that were sent. A text in a field that needs a number is a fault."""
    return _form(version, values)


def _form(version: Version, values: Mapping[str, str] | None) -> FilledForm:
    columns = version.table.features
    known = _Training(version)
    shown = _most_important(version)
    row: dict[str, Any] = {}
    fields: list[FormField] = []
    room = MAX_OPTIONS
    for index, column in enumerate(columns):
        example = known.example(column)
        row[column.name] = example
        if index not in shown:
            continue
        field = _field(index, column, known, room)
        room -= _length(label for _, label in field.options)
        field = replace(field, required=not version.encoder.columns[index].fills_gaps)
        if values is None:
            fields.append(replace(field, value=_written(example, column, field)))
            continue
        text = values.get(field.key, "")[:MAX_TEXT]
        value, fault = _read(text, column, field)
        row[column.name] = value
        fields.append(replace(field, value=text, error=fault))
    return FilledForm(fields, row, len(columns) - len(fields))


class _Training:
    """The means and ranges of features in the training rows, if they are known."""

    def __init__(self, version: Version) -> None:
        model = version.model
        imported = version.card.imported
        has_means = model.has_statistics and not (imported is not None and imported.means_unknown)
        mean = model.statistics.mean[: len(model.columns)] if has_means else np.full(len(model.columns), np.nan)
        self._mean = mean.tolist()
        self._low, self._high = (ends.tolist() for ends in model.ranges)
        # The place of each feature's own column, and the power it has there.
        self._places: dict[str, tuple[int, int]] = {}
        if not model.terms:
            self._places = {name: (index, 1) for index, name in enumerate(model.columns)}
        else:
            for index, factors in enumerate(parse_terms(model.terms, model.features)):
                if len(factors) == 1:
                    feature, power = factors[0]
                    self._places.setdefault(model.features[feature], (index, power))

    def range(self, name: str) -> tuple[float, float] | None:
        """Return the smallest and largest value of a feature, or None if they are not known."""
        index, power = self._places.get(name, (None, 0))
        if index is None or power != 1 or not math.isfinite(self._low[index]):
            return None
        return self._low[index], self._high[index]

    def example(self, column: Column) -> Any:
        """Return a value of the feature in JSON: the mean, rounded, or the reference level."""
        if column.kind == "category":
            return column.levels[0] if column.levels else None
        mean = self._mean_of(column.name)
        if column.kind == "boolean":
            return mean >= 0.5  # noqa: PLR2004 - the more frequent one
        if column.kind == "date":
            return iso_date(mean)
        rounded = float(f"{mean:.{_DIGITS}g}")
        ends = self.range(column.name)
        value = mean if ends is not None and not ends[0] <= rounded <= ends[1] else rounded
        return int(value) if value.is_integer() and abs(value) < _EXACT else value

    def _mean_of(self, name: str) -> float:
        index, power = self._places.get(name, (None, 1))
        if index is None or not math.isfinite(self._mean[index]):
            return 1.0
        mean: float = self._mean[index]
        return mean if power == 1 else max(mean, 0.0) ** (1 / power)


def iso_date(days: float) -> str:
    """Return the date that is this number of days after 1970-01-01, or the nearest one that can be written."""
    least, most = (date.min - _EPOCH).days, (date.max - _EPOCH).days
    return (_EPOCH + timedelta(days=min(max(round(days), least), most))).isoformat()


def _most_important(version: Version) -> frozenset[int]:
    """Return the indices of at most MAX_FIELDS features: those that move the prediction most."""
    features = version.table.features
    if len(features) <= MAX_FIELDS:
        return frozenset(range(len(features)))
    effects = np.abs(version.model.coef * deviations(version)).max(axis=0)
    if version.model.terms:
        return frozenset(range(MAX_FIELDS))
    by_feature = np.array([effects[place].max(initial=0.0) for place in version.encoder.places])
    return frozenset(np.argsort(-np.nan_to_num(by_feature), kind="stable")[:MAX_FIELDS].tolist())


def _field(index: int, column: Column, known: _Training, room: int) -> FormField:
    ends = known.range(column.name)
    if column.kind == "boolean":
        return FormField(index, column.name, "select", "", (("true", "true"), ("false", "false")))
    if column.kind == "category":
        if _length(column.levels) > room:
            return FormField(index, column.name, "text", "", hint=f"One of {len(column.levels)} levels")
        options = tuple((str(place), level) for place, level in enumerate(column.levels))
        return FormField(index, column.name, "select", "", options)
    if column.kind == "date":
        hint = "" if ends is None else f"{iso_date(ends[0])} to {iso_date(ends[1])} in training"
        return FormField(index, column.name, "date", "", hint=hint)
    if ends is None:
        return FormField(index, column.name, "number", "", hint="The range in training is not known")
    between = f"{number(ends[0])} to {number(ends[1])}"
    return FormField(index, column.name, "number", "", placeholder=between, hint=f"{between} in training")


def _length(labels: Iterable[str]) -> int:
    """Return the characters of a list in HTML."""
    return sum(OPTION + len(label) for label in labels)


def _written(value: Any, column: Column, field: FormField) -> str:
    """Return a value as the text of a field."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if field.control == "select":
        return str(column.levels.index(value))
    return str(value)


def _read(text: str, column: Column, field: FormField) -> tuple[Any, str | None]:
    """Return the value in JSON for the text of a field, or what is wrong with it."""
    if not text.strip():
        return None, "Enter a value." if field.required else None
    if field.control == "select":
        values = dict(field.options)
        if text not in values:
            return None, "Choose a value from the list."
        return (text == "true") if column.kind == "boolean" else values[text], None
    return _read_number(text, column) if column.kind == "number" else (text, None)


def _read_number(text: str, column: Column) -> tuple[Any, str | None]:
    try:
        value = float(text)
    except ValueError:
        # Text such as `1,000` may be a number by the schema of the column.
        return (None, "Enter a number, such as 12.5.") if column.refuses_strings else (text, None)
    if not math.isfinite(value):
        return None, "Enter a finite number."
    return int(value) if value.is_integer() and abs(value) < _EXACT else value, None
