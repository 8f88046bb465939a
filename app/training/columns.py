"""The columns of a training request, and whether they fit its options and the model's versions.

A request is checked before its job is recorded. The names in an NDJSON file are known only at its end, so if a request
does not name its features, the job finds them and makes the same checks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from app.data.content import explained
from app.data.formats import BY_NAME
from app.data.formats.base import TableFormat
from app.data.names import check_names, missing_columns
from app.data.training_rows import MATRIX
from app.errors import FieldError, InvalidInput, ModelFileInvalid, ModelNotFound, NotFound
from app.registry.model_card import ModelCard
from app.registry.reader import ModelReader
from app.registry.version_file import Version
from app.regression.solvers import GradientDescent, Start
from app.regression.terms import parse_terms
from app.training.fit_errors import fit_errors_translated
from app.training.inheritance import check_base
from app.training.request import TrainingRequest
from app.training.same_columns import checked_features

MAX_NAMES = 10  # Most names of features, terms or targets in a message.
MAX_COEFFICIENTS = 200_000  # Most coefficients of a model. Its card has six values for each.


def current_version(registry: ModelReader, model: str, mode: str) -> Version | None:
    """Return the current version of the model that will be trained, or None.

    If it is damaged and the mode is replace, return None, because the training repairs the model.
    """
    try:
        return registry.current(model)
    except ModelNotFound:
        return None
    except ModelFileInvalid:
        if mode != "replace":
            raise
        return None


def with_columns_of_file(
    request: TrainingRequest, path: Path, registry: ModelReader, step: Callable[[], None]
) -> tuple[TrainingRequest, Mapping[str, int]]:
    """Return the request with features, and the line in which a column first appears, for columns not in line 1.

    Read all names of an NDJSON file, unless its first line has those that the request names. Call `step` repeatedly
    meanwhile. Raises InvalidInput if columns are missing from the file, or do not fit.
    """
    table_format = BY_NAME.get(request.format)
    if table_format is None or not table_format.names_in_rows:
        return request, {}
    with explained(path, table_format):
        return _with_columns_of_lines(request, path, table_format, registry, step)


def _with_columns_of_lines(
    request: TrainingRequest, path: Path, table_format: TableFormat, registry: ModelReader, step: Callable[[], None]
) -> tuple[TrainingRequest, Mapping[str, int]]:
    columns = _columns_to_read(request, request.features)
    if request.features and set(columns) <= set(table_format.column_names(path)):
        return request, {}
    lines = table_format.first_lines(path, step)
    features = request.features
    if not features:
        current = current_version(registry, request.model, request.mode)
        features = tuple(_features_of(lines, request, current))
        # A missing name causes other errors, so it is reported first.
        _check_present(_columns_to_read(request, features), lines)
        request = with_columns(request, features, current, registry, lines)
    else:
        _check_present(columns, lines)
    return request, {name: lines[name] for name in _columns_to_read(request, features) if lines[name] > 1}


def _columns_to_read(request: TrainingRequest, features: Sequence[str]) -> list[str]:
    others = [name for name in (request.weight, request.groups) if name is not None and name not in features]
    return [*request.targets, *features, *others]


def _features_of(lines: Mapping[str, int], request: TrainingRequest, current: Version | None) -> Sequence[str]:
    others = {*request.targets, request.weight, request.groups}
    features = [name for name in lines if name not in others]
    if current is None:
        return features
    if request.mode == "replace" and not request.infer_columns:
        targets = [name for name in request.targets if name in lines]
        return checked_features(features, targets, current.card, rows="The file has")
    # The names of a JSON object have no order, so keep that of the current version.
    return current.card.features if set(features) == set(current.card.features) else features


def _check_present(names: Sequence[str], lines: Mapping[str, int]) -> None:
    if missing := [name for name in names if name not in lines]:
        raise missing_columns(missing, list(lines), has_header=False)


def with_columns(
    request: TrainingRequest,
    features: Sequence[str],
    current: Version | None,
    registry: ModelReader,
    lines: Mapping[str, int] | None = None,
) -> TrainingRequest:
    """Return the request with these features and with its terms, or those of the version that it builds on.

    `lines` gives the line in which each name of an NDJSON file first appears. Raises InvalidInput if names, terms and
    versions do not fit together.
    """
    _check_names(features, request, lines or {})
    terms: Sequence[str] = request.terms
    if terms:
        with fit_errors_translated():
            parse_terms(terms, features)
    elif current is not None and request.mode != "replace":
        terms = current.card.terms
    columns, targets = terms or features, request.targets
    if len(columns) * len(targets) > MAX_COEFFICIENTS:
        raise InvalidInput(
            f"{len(columns)} columns for {len(targets)} targets: a model has at most {MAX_COEFFICIENTS} coefficients."
        )
    request = replace(request, features=tuple(features), terms=tuple(terms))
    check_versions(request, current, registry)
    if _needs_current(request) and current is not None and not has_columns_of(current, request):
        option = "/mode" if request.mode != "replace" else "/promote"
        raise InvalidInput.at(option, other_columns(current.card))
    _check_start(request, current, registry)
    return request


def check_versions(request: TrainingRequest, current: Version | None, registry: ModelReader) -> None:
    """Raise InvalidInput if a version that the request builds on does not exist."""
    if request.mode != "replace" and current is None:
        raise InvalidInput.at("/mode", f"The model has no current version to {request.mode}.")
    if request.mode != "replace" and current is not None:
        check_base(request, current.card)
    _start_version(request, current, registry)


def _needs_current(request: TrainingRequest) -> bool:
    """Return True if the request needs a current version with the same columns: an update, a forget or a comparison."""
    return request.mode != "replace" or request.promote == "if_better"


def _check_names(features: Sequence[str], request: TrainingRequest, lines: Mapping[str, int]) -> None:
    try:
        check_names(features, request.targets)
    except InvalidInput as error:
        if request.format == MATRIX:
            raise
        # These names come from the file, not from a list in the body.
        details = [_in_file(detail, features, lines) for detail in error.details]
        raise InvalidInput(error.message, details) from None


def _in_file(detail: FieldError, features: Sequence[str], lines: Mapping[str, int]) -> FieldError:
    _, option, index = f"{detail.pointer}/".split("/")[:3]
    line = lines.get(features[int(index)], 1) if index and option == "feature_names" else 1
    appears = f" The name first appears in line {line}." if line > 1 else ""
    return FieldError(detail.message + appears, row=line)


def other_columns(card: ModelCard) -> str:
    """Return the message for rows whose columns are not those of the current version."""
    columns = [("features", card.features), ("terms", card.terms), ("targets", card.targets)]
    listed = "; ".join(
        f"{role}: {', '.join(names[:MAX_NAMES])}{', ...' * (len(names) > MAX_NAMES)}"
        for role, names in columns
        if names
    )
    return f"The current version has other features, terms or targets than these rows. It has {listed}."


def has_columns_of(version: Version, request: TrainingRequest) -> bool:
    """Return True if the version has the features, terms and targets of the request."""
    card = version.card
    columns = (request.features, request.terms, request.targets)
    return [list(names) for names in columns] == [list(card.features), list(card.terms), list(card.targets)]


def _start_version(request: TrainingRequest, current: Version | None, registry: ModelReader) -> Version | None:
    start = _start(request)
    if start == "current" and current is None:
        raise InvalidInput.at("/solver/start", "The model has no current version to start from.")
    if start == "current":
        return current
    if not isinstance(start, Start) or start.version is None:
        return None
    try:
        return registry.version(request.model, start.version)
    except NotFound as error:
        raise InvalidInput.at("/solver/start/version", error.message) from None


def _start(request: TrainingRequest) -> str | Start | None:
    return request.solver.start if isinstance(request.solver, GradientDescent) else None


def _check_start(request: TrainingRequest, current: Version | None, registry: ModelReader) -> None:
    start = _start(request)
    if (version := _start_version(request, current, registry)) is not None:
        if not has_columns_of(version, request):
            raise InvalidInput.at(
                "/solver/start",
                f"Version {version.card.version} has other features, terms or targets than these rows.",
            )
    elif isinstance(start, Start) and start.weights is not None and start.intercept is not None:
        columns, targets = request.terms or request.features, request.targets
        if len(start.weights) != len(targets) or any(len(row) != len(columns) for row in start.weights):
            raise InvalidInput.at("/solver/start/weights", f"Expected {len(targets)} rows of {len(columns)} weights.")
        if len(start.intercept) != len(targets):
            raise InvalidInput.at("/solver/start/intercept", f"Expected {len(targets)} values.")
