"""Read a file as a training would, and describe its columns instead of fitting a model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from app.data.batch import Source
from app.data.columns.kinds import Decided, decide
from app.data.columns.schema import TableSchema
from app.data.columns.terms import encoded_terms
from app.data.content import explained
from app.data.formats.file_set import known_format
from app.data.names import listed, missing_columns, shown
from app.errors import InvalidInput
from app.registry.version_file import Version
from app.training.columns import (
    check_named,
    check_usable,
    checked_features,
    known_dialect,
    known_signs,
    left_out_before,
)
from app.training.planner import check_dropped, index_left_out, index_warnings, left_out
from app.training.request import TrainingRequest
from app.training.table import TableReader

COLUMN_BYTES = 1 << 14  # Bytes of the distinct texts of a column, estimated.


@dataclass(frozen=True)
class Inspection:
    """The columns of a file, as a training would read them."""

    request: TrainingRequest  # with the columns of the file
    schema: TableSchema
    columns: Mapping[str, Decided]  # what was found in each column, by name
    warnings: tuple[str, ...]
    differences: tuple[str, ...]  # between the file and the version that it was compared with
    rows: int

    @property
    def design_columns(self) -> int:
        """Number of coefficients of each target, without the intercept."""
        return len(encoded_terms(self.request.terms, self.schema) or self.schema.encoded_features)


def inspect_file(
    draft: TrainingRequest, source: Source, version: Version | None, max_bytes: int, reserve: Callable[[int], None]
) -> Inspection:
    """Return what a training of a new model would find in a file, and the differences to a version if one is given.

    The draft may have no targets. `reserve` is called with the bytes that the cells will take in memory.

    Raises InvalidInput if the file cannot be read, or if a kind cannot be decided.
    """
    request, late, index = _with_columns(draft, source, version)
    size = known_format(request.format, source).check_size(source, list(request.columns), max_bytes)
    reserve(size + COLUMN_BYTES * len(request.columns))
    differences, reader, schema = _compared(request, source, late, version)
    assert reader.profile is not None
    untyped = known_format(request.format, source).has_untyped_text
    columns = {name: decide(column, untyped=untyped) for name, column in reader.profile.columns.items()}
    warnings = (*request.warnings, *index_warnings(index), *reader.warnings)
    return Inspection(request, schema, columns, warnings, differences, reader.profile.rows)


def _with_columns(
    draft: TrainingRequest, source: Source, version: Version | None
) -> tuple[TrainingRequest, Mapping[str, int], list[str]]:
    """Return the request with the columns of the file, the late lines of NDJSON, and the index columns."""
    table_format, late = known_format(draft.format, source), {}
    with explained(source, table_format):
        dialect = table_format.dialect(source, known_signs(draft, version), known_dialect(draft, version))
    with explained(source, table_format, dialect):
        header = table_format.column_names(source, dialect)
        if table_format.names_in_rows:
            lines = table_format.first_lines(source)
            header, late = list(lines), {name: line for name, line in lines.items() if line > 1}
        check_named(draft, header)
        targets = draft.targets
        if not targets and version is not None:
            targets = tuple(name for name in version.card.targets if name in header)
        check_dropped(draft, targets, draft.features)
        draft = replace(draft, targets=targets)
        index = index_left_out(header, table_format.index_columns(source), draft, version)
        columns = left_out(header, index, draft)
        excluded = {*targets, *draft.weight_and_groups, *(column.name for column in columns)}
        excluded |= left_out_before(draft, version)
        features = draft.features or tuple(name for name in header if name not in excluded)
        draft = replace(draft, features=features, left_out=tuple(columns))
        if missing := [name for name in draft.columns if name not in header]:
            raise missing_columns(missing, header)
        check_usable(draft.features, draft, late, needs_targets=False)
    return draft, late, index


def _compared(
    request: TrainingRequest, source: Source, late: Mapping[str, int], version: Version | None
) -> tuple[tuple[str, ...], TableReader, TableSchema]:
    """Return the differences to a version, and the reader and the schema of the file.

    A file that fits the version is read with the kinds and the signs of the version's columns.
    """
    differences: tuple[str, ...] = ()
    if version is not None:
        try:
            names = checked_features(request.features, request.targets or version.card.targets, version.card)
            reader = TableReader(replace(request, features=tuple(names)), source, late, certain=True)
            schema = reader.read(version)
            return _changes(version.card.schema_of_rows, schema), reader, schema
        except InvalidInput as error:
            differences = tuple(dict.fromkeys([error.message, *(detail.message for detail in error.details)]))
    reader = TableReader(request, source, late, certain=True)
    return differences, reader, reader.read(None)


def _changes(before: TableSchema, now: TableSchema) -> tuple[str, ...]:
    """Return the levels that only one of the two has."""
    changes = []
    for column in now.features:
        known = before.column(column.name)
        if known is None or column.kind != "category":
            continue
        for words, levels in (
            ("has new levels", [level for level in column.levels if level not in {*known.levels}]),
            ("lacks levels", [level for level in known.levels if level not in {*column.levels}]),
        ):
            if levels:
                changes.append(f"The column {shown(column.name)} {words}: {listed(levels)}.")
    return tuple(changes)
