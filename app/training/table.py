"""The first pass over the rows of a job: find their schema, or apply that of the current version."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from app.data.batch import CellBatch, Columns, FileSet, Source
from app.data.columns.dialect import with_thousands
from app.data.columns.options import ColumnOptions, ReadingOptions
from app.data.columns.plan import Inferred, ProfileParts, contradicts, plan_schema
from app.data.columns.profile import TableProfile
from app.data.columns.roles import Roles
from app.data.columns.schema import Column, Dialect, TableSchema
from app.data.content import explained
from app.data.formats import BY_NAME
from app.data.formats.base import TableFormat
from app.data.formats.file_set import format_of, in_files
from app.data.names import listed
from app.errors import InvalidInput
from app.registry.version_file import Version
from app.training.columns import known_dialect, known_schema
from app.training.request import TrainingRequest

if TYPE_CHECKING:  # it loads scipy
    from app.training.fragments.files import FragmentedFiles


class TableReader:
    """Finds the schema of one job's rows, again if another version becomes current."""

    def __init__(
        self,
        request: TrainingRequest,
        source: Source,
        late: Mapping[str, int],
        threads: int = 1,
        *,
        step: Callable[[], None] = lambda: None,
        certain: bool = False,
        fragments: "FragmentedFiles | None" = None,
    ) -> None:
        """Describe the rows of `source`. `late` has the line in which each column of NDJSON appears, unless the first.

        `step` is called regularly. With `certain`, all rows are read even if all columns appear to be numbers.
        `fragments` are those of the files of `source`, which are then read at the same time.
        """
        self._request, self._source = request, source
        self._late, self._threads, self._step = late, threads, step
        self._key: tuple[TableSchema | None, Dialect | None] | None = None  # the inputs of the last plan
        self._inferred: Inferred | None = None
        self._certain, self._fragments = certain, fragments

    @property
    def profile(self) -> TableProfile | None:
        """The cells from which the last schema was found; None for a matrix."""
        return None if self._inferred is None else self._inferred.profile

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the columns of the last schema."""
        return () if self._inferred is None else self._inferred.warnings

    def read(self, current: Version | None) -> TableSchema:
        """Return the schema of the rows for this current version. The rows are read again only if it has changed.

        Raises InvalidInput if a kind cannot be decided, or if the rows do not fit the current version.
        """
        table_format = format_of(self._request.format, self._source)
        if table_format is None:
            return _schema_of_matrix(self._request, current)
        key = (known_schema(self._request, current), known_dialect(self._request, current))
        if self._inferred is None or key != self._key:
            self._inferred, self._key = self._plan(table_format, *key), key
        schema, known = self._inferred.schema, {column.name for column in self._request.left_out}
        others = (column for column in schema.left_out if column.name not in known)
        return replace(schema, left_out=(*self._request.left_out, *others))

    def corrects(self, error: InvalidInput) -> bool:
        """Return True if a fault only shows that the guess from the first rows was wrong. Then read all rows."""
        if self._certain or self._inferred is None or not contradicts(error, self._inferred):
            return False
        self._certain, self._inferred = True, None
        return True

    def _plan(self, table_format: TableFormat, current: TableSchema | None, known: Dialect | None) -> Inferred:
        request, source = self._request, self._source
        signs = request.reading
        if current is not None:
            signs = with_thousands(signs, (*current.features, *current.targets))
        with explained(source, table_format):
            dialect = table_format.dialect(source, signs, known)
        features = request.features if request.named else None
        options = request.reading
        if (
            current is not None
            and request.named
            and {*request.features} != {column.name for column in current.features}
        ):
            options, current = _with_kinds_of(current, options, request), None
        with in_files(source, table_format.first_row(dialect)), explained(source, table_format, dialect):
            return plan_schema(
                lambda columns: self._cells(table_format, columns, dialect),
                Roles(
                    (*request.features, *request.targets, *([request.weight] if request.weight else [])),
                    request.targets,
                    request.weight,
                    features,
                ),
                options,
                dialect=dialect,
                first_row=table_format.first_row(dialect),
                untyped=table_format.has_untyped_text,
                current=current,
                mode=request.mode,
                certain=self._certain,
                step=self._step,
                profile_parts=self._profile_parts(dialect),
            )

    def _profile_parts(self, dialect: Dialect) -> ProfileParts | None:
        fragments, source = self._fragments, self._source
        if fragments is None or not isinstance(source, FileSet):
            return None
        return partial(fragments.profile, dialect=dialect, step=self._step, note_rows=source.note_rows)

    def _cells(self, table_format: TableFormat, columns: Columns, dialect: Dialect) -> Iterator[CellBatch]:
        columns = columns._replace(dialect=dialect, late=self._late)
        return table_format.cells(self._source, columns, self._threads)


def to_store(schema: TableSchema, request: TrainingRequest, current: Version | None) -> TableSchema:
    """Return the schema for the card. Rows in a format without text do not change how text is divided."""
    table_format, known = BY_NAME.get(request.format), known_dialect(request, current)
    if known is None or table_format is None or "sep" in table_format.options:
        return schema

    def as_known(column: Column) -> Column:
        return replace(column, decimal=known.decimal) if column.decimal == schema.dialect.decimal else column

    return replace(
        schema,
        dialect=known,
        features=tuple(map(as_known, schema.features)),
        targets=tuple(map(as_known, schema.targets)),
        weight=None if schema.weight is None else as_known(schema.weight),
    )


def _schema_of_matrix(request: TrainingRequest, current: Version | None) -> TableSchema:
    """Return the schema of rows that came as numbers. Raises InvalidInput if the current version has other kinds."""
    schema = known_schema(request, current)
    missing = request.reading.missing or "drop"
    if schema is None or {column.name for column in schema.features} != {*request.features}:
        plain = TableSchema.of_numbers(request.features, request.targets, request.weight)
        return _with_gaps(plain, missing)
    if not schema.is_plain:
        others = [column.name for column in schema.numbers if not column.is_plain]
        assert current is not None
        raise InvalidInput(
            f"The rows were sent as numbers, and in version {current.card.version} of the model these columns are "
            f"not plain numbers: {listed(others)}. Send the rows again."
        )
    known = {column.name: column for column in schema.numbers}
    schema = replace(
        schema,
        features=tuple(known[name] for name in request.features),
        targets=tuple(known.get(name, Column(name)) for name in request.targets),
        weight=None if request.weight is None else Column(request.weight),
        left_out=(),
    )
    return schema if request.reading.missing is None else _with_gaps(schema, missing)


def _with_gaps(schema: TableSchema, missing: str) -> TableSchema:
    def changed(column: Column) -> Column:
        return replace(column, missing="refuse" if missing == "refuse" else "drop")

    return replace(
        schema,
        features=tuple(map(changed, schema.features)),
        targets=tuple(map(changed, schema.targets)),
        weight=None if schema.weight is None else changed(schema.weight),
    )


def _with_kinds_of(current: TableSchema, options: ReadingOptions, request: TrainingRequest) -> ReadingOptions:
    """Return the options with those of the current version's columns, for rows that have only some of them."""
    columns = {column.name: _options_of(column) for column in current.numbers if column.name in request.columns}
    for name in columns.keys() & {*request.targets, *request.weight_and_groups}:
        columns[name] = replace(columns[name], missing=None, fill=None)  # Gaps of targets and weights are never filled.
    return replace(options, columns={**columns, **options.columns})


def _options_of(column: Column) -> ColumnOptions:
    return ColumnOptions(
        kind=column.kind,
        strings=column.strings,
        decimal=column.decimal,
        thousands=column.thousands,
        na=column.na,
        strip=column.strip,
        dates=column.dates,
        reference=column.levels[0] if column.levels else None,
        missing=column.missing,
        fill=column.fill,
    )
