"""CSV whose header may be missing: the values of each row are then those of the features, in the model's order."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace

from app.data.batch import Source
from app.data.columns.options import ReadingOptions
from app.data.columns.schema import Dialect
from app.data.formats.base import Span
from app.data.formats.csv import CsvFormat
from app.data.formats.csv_header import Layout, read_layout
from app.data.names import listed, missing_columns
from app.errors import FieldError, InvalidInput, LinserveError


class CsvOfModel(CsvFormat):
    """CSV for a model with these features. The first row is a header if it holds the names of all of them."""

    def __init__(self, features: Sequence[str], span: Span | None = None) -> None:
        super().__init__(span)
        self._features = tuple(features)

    def dialect(self, source: Source, options: ReadingOptions, known: Dialect | None = None) -> Dialect:
        with_header = replace(options, header="names")
        try:
            dialect = super().dialect(source, with_header, known)
            if set(self._features) <= set(read_layout(source, dialect).names):
                return dialect
        except InvalidInput:  # A row of values may hold one twice.
            pass
        return super().dialect(source, replace(options, header="none"), known)

    def within(self, span: Span) -> "CsvOfModel":
        return CsvOfModel(self._features, span)

    def explain(self, error: LinserveError, head: bytes, dialect: Dialect) -> LinserveError:
        """Return an error about the header if the first row was read as values, but holds names of features."""
        if dialect.header == "none" and any(detail.row == dialect.skip + 1 for detail in error.details):
            with contextlib.suppress(InvalidInput):
                names = read_layout(head, replace(dialect, header="names", encoding="utf-8")).names
                missing = [name for name in self._features if name not in names]
                if 0 < len(missing) < len(self._features):
                    return missing_columns(missing, names)
        return super().explain(error, head, dialect)

    def _layout(self, source: Source, dialect: Dialect) -> Layout:
        layout = read_layout(source, dialect)
        if dialect.header != "none":
            return layout
        if len(layout.names) != len(self._features):
            row = dialect.skip + 1
            message = (
                f"Row {row} has {len(layout.names)} value(s), and the model has {len(self._features)} feature(s): "
                f"{listed(list(self._features))}. Send a value for each, in this order, or a first row with the names "
                "of the columns."
            )
            raise InvalidInput(message, [FieldError(message, row=row)])
        return layout._replace(columns=(*self._features, *layout.columns[len(self._features) :]))
