"""The preview of a file on the train page: its first rows, its columns as a training would read them, and its fault."""

import contextlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import Request

from app.data.batch import Source
from app.data.columns.options import Kind
from app.data.first_rows import FirstRows, first_rows
from app.data.formats.file_set import known_format
from app.errors import FieldError, InvalidInput, LinserveError
from app.pages.formatting import number
from app.pages.train_form import chosen_kinds, names_in, quoted, without
from app.training.request import TrainingRequest
from app.web.bodies import received_of
from app.web.multipart import Form
from app.web.receiving import Watch
from app.web.state import get_memory

MAX_SHOWN_FAULTS = 10  # Rows with a fault that are shown after the first rows.
KINDS: tuple[Kind, ...] = ("number", "boolean", "date", "category")
REASONS = {
    "identifier": "Most values are different, so the column seems to identify rows. Choose a kind to use it.",
    "index": "The column numbers the rows. Choose a kind to use it.",
    "drop": "As you chose.",
}


class Preview:
    """A file that was sent with its fields, and the results of reading it."""

    def __init__(self, request: Request) -> None:
        self.view: Mapping[str, Any] | None = None  # as POST /inspect returns it
        self._request = request
        self._rows = FirstRows()
        self._faults: tuple[FieldError, ...] = ()

    @property
    def form(self) -> Form:
        """The fields that have been read."""
        return received_of(self._request).fields

    def watch(self, *, always: bool) -> Watch:
        """Return a context that reads the first rows: always, or only if the file has a fault."""

        @contextlib.contextmanager
        def watched(source: Source, draft: TrainingRequest) -> Iterator[None]:
            try:
                yield
            except InvalidInput as error:
                self._read(source, draft, error.details)
                raise
            if always:
                self._read(source, draft, ())

        return watched

    def _read(self, source: Source, draft: TrainingRequest, faults: tuple[FieldError, ...]) -> None:
        rows = [fault.row for fault in faults if fault.row is not None][:MAX_SHOWN_FAULTS]
        self._faults = faults
        # An error here must not fail the request, because the preview is optional.
        with contextlib.suppress(LinserveError):
            table_format = known_format(draft.format, source)
            self._rows = first_rows(source, table_format, draft.reading, rows, get_memory(self._request).reserve)

    def context(self) -> dict[str, Any]:
        """Return what the template needs."""
        columns = self._columns()
        shown = self._rows.names
        return {
            "columns": columns,
            "kinds": KINDS,
            "reasons": REASONS,
            "first": self._rows,
            "fault_cells": {(fault.row, shown.index(fault.column)) for fault in self._faults if fault.column in shown},
            "fault_rows": {fault.row for fault in self._faults},
            "view": self.view,
            # Options of columns that are not shown stay as they are.
            "more_targets": without(self._targets(), shown),
            "more_dropped": without(names_in(self.form, "drop"), shown),
            "extra_cells": max((len(row.cells) - len(shown) for row in self._rows.rows), default=0),
            "more_columns": max(0, self._rows.columns - len(shown)),
        }

    def _columns(self) -> list[dict[str, Any]]:
        view = self.view or {"columns": [], "left_out": []}
        known = {column["name"]: column for column in view["columns"]}
        left_out = {column["name"]: column["reason"] for column in view["left_out"]}
        kinds, targets, dropped = chosen_kinds(self.form), self._targets(), names_in(self.form, "drop")
        suggested = None if names_in(self.form, "targets") else next(iter(targets), None)
        return [
            {
                "name": name,
                "value": quoted(name),
                "chosen": kinds.get(name, ""),
                "found": known.get(name),
                "range": _range(known[name]) if name in known else "",
                "left_out": left_out.get(name),
                "is_target": name in targets,
                "is_dropped": name in dropped,
                "is_suggested": name == suggested,
            }
            for name in self._rows.names
        ]

    def _targets(self) -> list[str]:
        """Return the targets that were chosen, those of the model, or else the last column of numbers."""
        if targets := names_in(self.form, "targets"):
            return targets
        found = [] if self.view is None else self.view["columns"]
        if targets := [column["name"] for column in found if column["role"] == "target"]:
            return targets
        place = {name: index for index, name in enumerate(self._rows.names)}
        numbers = [column["name"] for column in found if column["kind"] == "number" and column["name"] in place]
        return [max(numbers, key=place.__getitem__)] if numbers else []


def _range(column: Mapping[str, Any]) -> str:
    """Return the lowest and the highest value of a column of numbers or dates."""
    low, high = column["minimum"], column["maximum"]
    if low is None or high is None:
        return ""
    if column["kind"] == "boolean":
        return "false and true" if low != high else "always true" if low else "always false"
    shown = _date if column["kind"] == "date" else number
    return f"always {shown(low)}" if low == high else f"{shown(low)} to {shown(high)}"


def _date(days: float) -> str:
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=days)
    except OverflowError:
        return number(days)
    return moment.strftime("%Y-%m-%d" if float(days).is_integer() else "%Y-%m-%d %H:%M:%S UTC")
