"""Decoded JSON values of one column as columns of the design, as `columns.encoder` makes them from cells of a file.

It is plain Python, because pyarrow takes longer for a few values.
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.data.columns.booleans import boolean_of
from app.data.columns.categories import level_of
from app.data.columns.dates import date_of, parse_dates
from app.data.columns.encoder import Unknown
from app.data.columns.faults import expected, level_fault
from app.data.columns.numbers import number_of, parse_numbers
from app.data.columns.schema import Column
from app.data.json_faults import NULL_REMEDY, NUMBERS, Check, fault_of, kind_of
from app.data.lazy_pyarrow import pa

UNSEEN = -1.0  # in place of the index of a level
MAX_KNOWN_DATES = 4096  # Dates whose days are kept.
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC, without the cost of a time zone
_EPOCH_DAY = _EPOCH.toordinal()
_DAY_SECONDS = 86_400
_DATE_LENGTH = len("2020-01-31")
_TIMED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:Z|[+-][0-9]{2}:[0-9]{2})?")
_TYPES: dict[str, type] = {"number": float, "boolean": bool, "date": str, "category": str}


class JsonColumn:
    """Reads values as codes, and writes codes as columns of the design.

    A code is a number, the days since 1970, 0 or 1 for a boolean, or the index of a level. NaN is a gap.
    """

    def __init__(self, column: Column) -> None:
        self.column = column
        self.width = len(column.encoded_names)
        self.ordinary_type = _TYPES[column.kind]
        self._index = {level: float(index) for index, level in enumerate(column.levels)}
        fill = self._code(column.fill, {}) if isinstance(column.fill, str) else column.fill
        self._fill = np.nan if fill is None else fill
        self._gap = self._fill if column.missing == "fill" else np.nan  # the code in place of a gap
        if column.missing == "indicator" and column.kind == "category":
            self._gap = float(len(column.levels))
        elif column.missing == "indicator" and not np.isnan(self._fill):
            self._gap = np.inf
        self.fills_gaps = not np.isnan(self._gap)

    def codes(self, values: Sequence[Any]) -> NDArray[np.float64] | None:
        """Return the codes of values, (n,), or None if one of them cannot be read. They are for `completed`."""
        if self.column.is_plain and set(map(type, values)) <= NUMBERS:
            try:
                numbers = np.array(values, dtype=np.float64)
            except OverflowError:
                return None
            return None if np.isinf(numbers).any() else numbers
        if self.column.refuses_strings and str in set(map(type, values)):
            return None
        known = self._known(values)
        codes = [self._code(value, known) for value in values]
        return None if None in codes else np.array(codes, dtype=np.float64)

    def _known(self, values: Iterable[object]) -> dict[str, float | None]:
        """Return the codes of the texts among values of a column of numbers or dates. pyarrow reads all at once."""
        parse = {"number": parse_numbers, "date": parse_dates}.get(self.column.kind)
        texts = list({value for value in values if type(value) is str}) if parse is not None else []
        if parse is None or not texts:
            return {}
        if self.column.kind == "date" and not self.column.na:
            with contextlib.suppress(ValueError, OverflowError):
                return {text: iso_days(text) for text in texts}
        found = parse(pa.array(texts, pa.string()), self.column)
        codes: dict[str, float | None] = dict(zip(texts, found.values.tolist(), strict=True))
        if found.faults is not None:
            codes |= {texts[index]: None for index in np.flatnonzero(found.faults)}
        return codes

    def _code(self, value: Any, known: Mapping[str, float | None]) -> float | None:
        """Return the code of a value, or None if it cannot be read."""
        if type(value) is str:
            if (code := self._index.get(value)) is not None:
                return code
            if value in known:
                return known[value]
        kind, column = self.column.kind, self.column
        if kind == "category":
            try:
                level = level_of(value, column)
            except TypeError:
                return None
            return np.nan if level is None else self._index.get(level, UNSEEN)
        return {"number": number_of, "boolean": boolean_of, "date": date_of}[kind](value, column)

    def completed(self, codes: NDArray[np.float64], unknown: Unknown) -> int:
        """Replace gaps and unseen levels in codes, (n,), unless they are to be NaN. Return the number of NaN levels."""
        gaps = np.isnan(codes)
        count = 0
        if self.column.kind == "category":
            unseen = codes == UNSEEN
            count = 0 if unknown == "reference" else int(np.count_nonzero(unseen))
            codes[unseen] = np.nan if count else 0.0
        if self.fills_gaps:
            codes[gaps] = self._gap
        return count

    def write(self, codes: NDArray[np.float64], out: NDArray[np.float64]) -> None:
        """Write the columns of the design for completed codes, (n,), into `out`, (n, width)."""
        if self.column.kind != "category":
            out[:, 0] = codes
            if self.column.missing == "indicator":
                gaps = codes == self._gap
                out[gaps, 0] = self._fill
                out[:, 1] = gaps
            return
        out[:] = 0.0
        out[np.isnan(codes)] = np.nan
        rows = np.flatnonzero(codes > 0)
        out[rows, codes[rows].astype(np.intp) - 1] = 1.0

    def check(self, values: Iterable[object], *, missing: bool, unknown: Unknown) -> Check:
        """Return the check of a column with these values. A gap is a fault unless it is filled or may be `missing`."""
        return partial(self._fault, known=self._known(values), gaps=missing or self.fills_gaps, unknown=unknown)

    def _fault(self, value: object, known: Mapping[str, float | None], unknown: Unknown, *, gaps: bool) -> str | None:
        column, code = self.column, self._code(value, known)
        if code is None or (column.refuses_strings and type(value) is str):
            if column.kind == "number" and (column.refuses_strings or type(value) is not str):
                return fault_of(value)
            return f"Expected {expected(column)}, found {kind_of(value)}."
        if np.isnan(code) and not gaps:
            found = "null" if value is None else "a mark of a missing value"
            return f"Expected {expected(column)}, found {found}. Send a value,{NULL_REMEDY}"
        if column.kind == "category" and code == UNSEEN and unknown == "refuse":
            return level_fault(column, str(level_of(value, column)))
        return None

    def ordinary_reader(self) -> Callable[[Any], float]:
        """Return a fast function from an ordinary value of a number, a boolean or a date to its code.

        It raises LookupError, TypeError or ValueError for a gap, and for some values that only `codes` can read.
        """
        if self.column.na:
            return self._complete_code
        return _Days().__getitem__ if self.column.kind == "date" else float

    def _complete_code(self, value: Any) -> float:
        code = self._code(value, {})
        if code is None or np.isnan(code):
            raise ValueError
        return code


class _Days(dict[str, float]):
    """The days of dates that occurred, because reading one takes ten times as long as finding it again."""

    def __missing__(self, text: str) -> float:
        if len(self) >= MAX_KNOWN_DATES:
            self.clear()
        days = self[text] = iso_days(text)
        return days


def iso_days(text: str) -> float:
    """Return the days since 1970-01-01 UTC of the commonest forms of ISO 8601. Raises ValueError for other text."""
    if len(text) == _DATE_LENGTH and text[4] == text[7] == "-":
        return float(date.fromisoformat(text).toordinal() - _EPOCH_DAY)
    if _TIMED.fullmatch(text) is None:
        raise ValueError
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    time = moment - _EPOCH
    return time.days + time.seconds / _DAY_SECONDS
