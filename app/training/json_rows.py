"""Complete a training request with the columns of rows that came as JSON, and convert the rows to numbers."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from app.data.batch import Array
from app.data.groups import split_groups
from app.data.json_faults import are_objects
from app.data.json_rows import as_rows, first_rounded_rows, to_column, to_matrix
from app.data.rounding import rounding_warnings
from app.data.training_rows import first_weight_fault
from app.errors import InvalidInput
from app.registry.reader import ModelReader
from app.registry.version_file import Version
from app.regression.sufficient_statistics import WeightKind
from app.training.columns import checked_features, current_version
from app.training.parent import weight_kind
from app.training.planner import build_training_request
from app.training.request import TrainingRequest

SAMPLE_WEIGHTS = "sample_weights"


class JsonRows(Protocol):
    """Decoded rows, with the names that the caller gave to their values."""

    instances: list[Any]
    targets: list[Any]
    feature_names: list[str] | None
    target_names: list[str] | None
    sample_weights: list[Any] | None


def plan_rows(draft: TrainingRequest, rows: JsonRows, registry: ModelReader) -> tuple[TrainingRequest, list[Array]]:
    """Return the request with the columns of its rows, and the rows as matrices of the same height, to store.

    Raises InvalidInput with the place of a name or a value that does not fit.
    """
    current = current_version(registry, draft.model, draft.mode)
    features, targets = _names_of_rows(draft, rows, current)
    missing = draft.reading.missing != "refuse"
    instances: Sequence[Any] = as_rows(rows.instances, features, "/instances", missing=missing)
    rows_of_targets = as_rows(rows.targets, targets, "/targets", missing=missing)
    if len(instances) != len(rows_of_targets):
        raise InvalidInput.at(
            "/targets",
            f"Found {len(rows_of_targets)} rows of targets for {len(instances)} instances. Send one for each.",
        )
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
        base = current.card if current and draft.mode != "replace" else None
        columns.append(_weights(rows.sample_weights, len(instances), weight_kind(request, base)))
        rounded |= first_rounded_rows(rows.sample_weights, [SAMPLE_WEIGHTS], columns[2])
    return replace(request, warnings=tuple(rounding_warnings(rounded))), columns + folds


def _names_of_rows(
    draft: TrainingRequest, rows: JsonRows, current: Version | None
) -> tuple[Sequence[str], Sequence[str]]:
    """Return the names of features and targets."""
    card = current.card if current and not draft.infer_columns else None
    features = _names(rows.instances, rows.feature_names, card.features if card else None, "feature")
    if rows.feature_names is None and card is None:
        features = [name for name in features if name != draft.groups]
    targets = _names(rows.targets, rows.target_names, card.targets if card else None, "target")
    if card is not None and draft.mode == "replace" and rows.feature_names is None:
        # Arrays have no names of their own, so only objects can differ from the current version.
        received = list(rows.instances[0]) if are_objects(rows.instances) else card.features
        if draft.groups not in card.features:
            received = [name for name in received if name != draft.groups]
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
