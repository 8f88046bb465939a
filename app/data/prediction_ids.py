"""Ids that clients give to predictions, to find them again when the outcomes are known."""

from collections.abc import Callable, Iterable
from typing import Any

from app.data.json_faults import MAX_DETAILS, kind_of
from app.data.lazy_pyarrow import pa
from app.errors import FieldError, InvalidInput

PREDICTION_ID = "prediction_id"
MAX_ID_LENGTH = 200
_RULE = f"Expected a string of 1 to {MAX_ID_LENGTH} printable characters"

At = Callable[[int, str], FieldError]  # Makes the error with this message about the id with this index.


class PredictionIds:
    """Ids of consecutive rows, each checked when it is added."""

    def __init__(self, at: At, most: int | None = None, *, distinct: bool = True) -> None:
        """Accept at most `most` ids, and none twice if they have to be `distinct`."""
        self._at, self._most = at, most
        self._seen: set[str] | None = set() if distinct else None
        self.ids: list[str] = []

    def add(self, values: Iterable[object]) -> None:
        """Add the ids of some rows. Raises InvalidInput with the places of those that are not valid."""
        details: list[FieldError] = []
        for value in values:
            fault = self._fault(value)
            if fault is not None:
                details.append(self._at(len(self.ids), fault))
            if len(details) == MAX_DETAILS:
                break
            self.ids.append(value if isinstance(value, str) else "")
        if details:
            raise InvalidInput(f"Not all ids of predictions are valid. {details[0].message}", details)
        if self._most is not None and len(self.ids) > self._most:
            message = f"At most {self._most} predictions with ids fit into one request. Send them in several requests."
            raise InvalidInput(message, [self._at(self._most, message)])

    def _fault(self, value: object) -> str | None:
        if not isinstance(value, str):
            return f"{_RULE}, found {kind_of(value)}."
        if not value or len(value) > MAX_ID_LENGTH:
            return f"{_RULE}, found {len(value)}."
        if not value.isprintable():
            return f"{_RULE}; one of its characters is not."
        if self._seen is not None:
            if value in self._seen:
                return "An earlier row has the same id. Give each row an id of its own."
            self._seen.add(value)
        return None


def ids_of_column(column: "pa.Array", name: str) -> list[Any]:
    """Return the values of a column of ids as strings. Raises InvalidInput if they are neither texts nor integers."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_integer(column.type):
        column = column.cast(pa.string())
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if not is_text and not pa.types.is_null(column.type):
        message = "The ids of predictions are neither texts nor integers. Write them as text."
        raise InvalidInput(message, [FieldError(message, column=name)])
    values: list[Any] = column.to_pylist()
    return values
