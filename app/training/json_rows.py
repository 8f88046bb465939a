"""Complete a training request with the columns of rows that came as JSON, and convert the rows to what is stored.

Rows of numbers become a matrix. Rows with words or other kinds become lines of NDJSON, which the job reads as a table.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any, BinaryIO, Protocol

import msgspec

from app.data.batch import Array
from app.data.columns.options import ReadingOptions
from app.data.columns.schema import LeftOut, TableSchema
from app.data.formats.ndjson import NDJSON
from app.data.groups import split_groups
from app.data.json_faults import NUMBERS, Check, all_faults, are_objects, fault_of, kind_of
from app.data.json_rows import as_rows, first_rounded_rows, to_column, to_matrix, without_names
from app.data.rounding import rounding_warnings
from app.data.training_rows import first_weight_fault, write_matrix
from app.errors import InvalidInput
from app.registry.base import ModelReader
from app.registry.version_file import Version
from app.regression.sufficient_statistics import WeightKind
from app.training.columns import check_named, checked_features, current_version, known_schema, left_out_before
from app.training.parent import weight_kind
from app.training.planner import build_training_request, check_dropped
from app.training.request import TrainingRequest

SAMPLE_WEIGHTS = "sample_weights"
NUMBER_LENGTH = 16  # Bytes of a value with its quotes and comma, estimated.
LINES = 1000  # Lines that are encoded at a time.


class JsonRows(Protocol):
    """Decoded rows, with the names that the caller gave to their values."""

    instances: list[Any]
    targets: list[Any]
    feature_names: list[str] | None
    target_names: list[str] | None
    sample_weights: list[Any] | None


class Rows(Protocol):
    """Rows in the form in which they are stored."""

    @property
    def size(self) -> int:
        """Estimate of their bytes."""

    def write(self, file: BinaryIO) -> None: ...


class MatrixRows:
    """Rows of numbers, as matrices of the same height."""

    def __init__(self, columns: Sequence[Array]) -> None:
        self._columns = columns
        self.size = sum(column.nbytes for column in columns)

    def write(self, file: BinaryIO) -> None:
        write_matrix(file, *self._columns)


class TableRows:
    """Rows of values by the names of their columns."""

    def __init__(self, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self._names, self._rows = names, rows
        self.size = len(rows) * sum(len(name) + NUMBER_LENGTH for name in names)

    def write(self, file: BinaryIO) -> None:
        objects = (dict(zip(self._names, row, strict=True)) for row in self._rows)
        while part := list(islice(objects, LINES)):
            file.write(msgspec.json.Encoder().encode_lines(part))


def plan_rows(draft: TrainingRequest, rows: JsonRows, registry: ModelReader) -> tuple[TrainingRequest, Rows]:
    """Return the request with the columns of its rows, and the rows to store.

    Raises InvalidInput with the place of a name or a value that does not fit.
    """
    current = current_version(registry, draft.model, draft.mode)
    if _is_table(draft, rows, current):
        return _plan_table(draft, rows, current, registry)
    return _plan_matrix(draft, rows, current, registry)


def _is_table(draft: TrainingRequest, rows: JsonRows, current: Version | None) -> bool:
    """Return True if some columns are not plain numbers, by the values, the options or the current version."""
    missing = draft.reading.missing
    if draft.reading != ReadingOptions(missing=missing) or missing in ("indicator", "fill"):
        return True
    schema = known_schema(draft, current)
    if schema is not None and not (schema.is_plain and schema.left_out == ()):
        return True
    return not {str, bool}.isdisjoint(chain(_types(rows.instances), _types(rows.targets)))


def _types(rows: Sequence[Any]) -> set[type]:
    values = (row.values() if isinstance(row, dict) else row if isinstance(row, list) else (row,) for row in rows)
    return set(map(type, chain.from_iterable(values)))


def _plan_table(
    draft: TrainingRequest, rows: JsonRows, current: Version | None, registry: ModelReader
) -> tuple[TrainingRequest, Rows]:
    dropped = frozenset(draft.reading.drop)
    ignored = dropped | left_out_before(draft, current)
    features, targets = _names_of_rows(draft, rows, current, ignored)
    check_dropped(draft, targets, rows.feature_names or ())
    groups = [] if draft.groups is None or draft.groups in features else [draft.groups]
    given = [name for name in rows.instances[0] if name in ignored] if are_objects(rows.instances) else []
    check_named(draft, [*features, *targets, *given])
    weight = None if rows.sample_weights is None else SAMPLE_WEIGHTS
    draft = replace(
        draft,
        targets=tuple(targets),
        weight=weight,
        reading=replace(draft.reading, drop=()),  # They are not stored.
        left_out=tuple(LeftOut(name, "drop") for name in given if name in dropped),
    )
    request = build_training_request(draft, features, current, registry)
    known = known_schema(draft, current)
    checks = [*(_check_of(name, draft, known) for name in features), *[_fault] * len(groups)]
    instances = _cells(rows.instances, [*features, *groups], "/instances", ignored=ignored, checks=checks)
    kinds = [draft.reading.of(name).kind for name in targets]
    checks = [_target_fault if kind is None else _fault for kind in kinds]
    rows_of_targets = _cells(rows.targets, targets, "/targets", checks=checks)
    _check_height(instances, rows_of_targets)
    parts: list[Iterable[Sequence[Any]]] = [instances, rows_of_targets]
    if rows.sample_weights is not None:
        parts.append(_checked_weights(rows.sample_weights, len(instances), request, current).tolist())
    names = [*features, *groups, *targets, *([weight] if weight is not None else [])]
    cells = [list(chain.from_iterable(row)) for row in zip(*parts, strict=True)]
    return replace(request, format=NDJSON.name), TableRows(names, cells)


def rows_to_inspect(draft: TrainingRequest, rows: JsonRows, version: Version | None) -> tuple[TrainingRequest, Rows]:
    """Return the request with the names of its targets, and all rows as a table. There may be no targets."""
    card = version.card if version is not None else None
    features = _names(rows.instances, rows.feature_names, card.features if card else None, "feature")
    if are_objects(rows.instances):
        features = list(rows.instances[0])
    columns, names = [_cells(rows.instances, features, "/instances")], [*features]
    if rows.targets:
        targets = _names(rows.targets, rows.target_names, card.targets if card else None, "target")
        columns.append(_cells(rows.targets, targets, "/targets"))
        _check_height(*columns)
        names += targets
        draft = replace(draft, targets=tuple(targets))
    cells = [list(chain.from_iterable(row)) for row in zip(*columns, strict=True)]
    return replace(draft, format=NDJSON.name), TableRows(names, cells)


def _cells(
    rows: list[Any],
    names: Sequence[str],
    pointer: str,
    *,
    ignored: frozenset[str] = frozenset(),
    checks: Sequence[Check] | None = None,
) -> Sequence[Sequence[Any]]:
    """Return the values of each row in the order of `names`. Raises InvalidInput with the place of each fault."""
    checks = checks or [_fault] * len(names)
    rows = as_rows(rows, names, pointer, numbers=False)
    if not isinstance(rows[0], dict | list):
        rows = [[value] for value in rows]
    elif are_objects(rows):
        rows = [without_names(row, ignored) if isinstance(row, dict) else row for row in rows]
    is_object, width = are_objects(rows), len(names)
    expected = dict if is_object else list
    if all(type(row) is expected and len(row) == width for row in rows):
        try:
            cells = [[row[name] for name in names] for row in rows] if is_object else rows
            if not any(check(value) for row in cells for check, value in zip(checks, row, strict=True)):
                return cells
        except KeyError:
            pass
    raise all_faults(rows, names, pointer, checks)


def _check_of(name: str, draft: TrainingRequest, known: TableSchema | None) -> Check:
    """Return the check of a feature's values: only numbers if the current version has a column of numbers."""
    column = None if known is None else known.column(name)
    given = draft.reading.of(name)
    if column is None or not column.refuses_strings or given.kind or given.na or given.strip or given.thousands:
        return _fault
    return _number_fault


def _number_fault(value: Any) -> str | None:
    return fault_of(value) if type(value) in (str, bool) else _fault(value)


def _fault(value: Any) -> str | None:
    if value is None or type(value) in (str, bool) or value != value:  # noqa: PLR0124 - NaN, which is a gap
        return None
    if type(value) in NUMBERS:
        return fault_of(value)
    return f"Expected a number, a string, a boolean or null, found {kind_of(value)}."


def _target_fault(value: Any) -> str | None:
    if isinstance(value, str):
        return "Expected a number or a boolean, found a string. Send a number without quotes."
    return _fault(value)


def _plan_matrix(
    draft: TrainingRequest, rows: JsonRows, current: Version | None, registry: ModelReader
) -> tuple[TrainingRequest, Rows]:
    features, targets = _names_of_rows(draft, rows, current)
    missing = draft.reading.missing != "refuse"
    instances: Sequence[Any] = as_rows(rows.instances, features, "/instances", missing=missing)
    rows_of_targets = as_rows(rows.targets, targets, "/targets", missing=missing)
    _check_height(instances, rows_of_targets)
    weight = None if rows.sample_weights is None else SAMPLE_WEIGHTS
    request = build_training_request(replace(draft, targets=tuple(targets), weight=weight), features, current, registry)
    folds = []
    if request.fold_groups is not None and request.groups not in features:
        instances, column = split_groups(instances, request.fold_groups, missing=missing)
        folds.append(column)
    columns = [
        to_matrix(instances, features, "/instances", missing=missing),
        to_matrix(rows_of_targets, targets, "/targets", missing=missing),
    ]
    rounded = first_rounded_rows(instances, features, columns[0])
    rounded |= first_rounded_rows(rows_of_targets, targets, columns[1])
    if rows.sample_weights is not None:
        columns.append(_checked_weights(rows.sample_weights, len(instances), request, current))
        rounded |= first_rounded_rows(rows.sample_weights, [SAMPLE_WEIGHTS], columns[2])
    return replace(request, warnings=tuple(rounding_warnings(rounded))), MatrixRows(columns + folds)


def _check_height(instances: Sequence[Any], targets: Sequence[Any]) -> None:
    if len(instances) != len(targets):
        raise InvalidInput.at(
            "/targets", f"Found {len(targets)} rows of targets for {len(instances)} instances. Send one for each."
        )


def _checked_weights(given: Sequence[Any], rows: int, request: TrainingRequest, current: Version | None) -> Array:
    base = current.card if current and request.mode != "replace" else None
    return _weights(given, rows, weight_kind(request, base))


def _names_of_rows(
    draft: TrainingRequest, rows: JsonRows, current: Version | None, ignored: frozenset[str] = frozenset()
) -> tuple[Sequence[str], Sequence[str]]:
    """Return the names of features and targets. Objects may have `ignored` names, which are not features."""
    card = current.card if current and not draft.infer_columns else None
    features = _names(rows.instances, rows.feature_names, card.features if card else None, "feature")
    if rows.feature_names is None and card is None:
        features = [name for name in features if name != draft.groups and name not in ignored]
    targets = _names(rows.targets, rows.target_names, card.targets if card else None, "target")
    if card is not None and draft.mode == "replace" and rows.feature_names is None:
        # Arrays have no names of their own, so only objects can differ from the current version.
        received = list(rows.instances[0]) if are_objects(rows.instances) else card.features
        others = ignored if draft.groups in card.features else {draft.groups, *ignored}
        received = [name for name in received if name not in others]
        has_names = rows.target_names is None and are_objects(rows.targets)
        checked_features(received, list(rows.targets[0]) if has_names else card.targets, card, body=True)
    return features, targets


def _names(rows: Sequence[Any], given: Sequence[str] | None, known: Sequence[str] | None, role: str) -> Sequence[str]:
    """Return the names given, or the model's, or for a new model those of the first object."""
    if given is not None:
        return given
    if known is not None:
        return known
    if are_objects(rows):
        return list(rows[0])
    message = (
        "These rows are arrays, and no current version names their values: there is none, or `schema: infer` "
        f"ignores it. Add `{role}_names`."
    )
    raise InvalidInput.at(f"/{role}_names", message)


def _weights(given: Sequence[Any], rows: int, kind: WeightKind) -> Array:
    if len(given) != rows:
        raise InvalidInput.at("/sample_weights", f"Found {len(given)} weights for {rows} instances. Send one for each.")
    weights = to_column(given, "/sample_weights")
    if fault := first_weight_fault(weights, kind):
        raise InvalidInput.at(f"/sample_weights/{fault[0]}", fault[1])
    return weights
