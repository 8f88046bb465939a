"""The columns of a training request, and whether they fit its options and the model's versions.

A request is checked before its job is recorded. The names in an NDJSON file are known only at its end, so if a request
does not name its features, the job finds them and makes the same checks.

If a model exists, rows have the columns of its current version, unless the request allows others. Otherwise, a column
more or less in a file would silently change the inputs of the model.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from app.data.batch import Source
from app.data.columns.dialect import with_thousands
from app.data.columns.options import ReadingOptions
from app.data.columns.schema import PLAIN, Dialect, LeftOut, TableSchema
from app.data.content import explained
from app.data.formats import BY_NAME
from app.data.names import check_names, did_you_mean, listed, missing_columns, shown, unquoted
from app.data.training_rows import MATRIX
from app.errors import FieldError, InvalidInput, ModelFileInvalid, ModelNotFound, NotFound
from app.registry.base import ModelReader
from app.registry.model_card import ModelCard, share_to_forget
from app.registry.version_file import Version
from app.regression.solvers import GradientDescent, Start
from app.regression.terms import parse_terms
from app.training.fit_errors import fit_errors_translated
from app.training.initial_coefficients import check_start_columns
from app.training.parent import (
    NO_START,
    changes_listed,
    check_has_rows,
    column_changes,
    has_columns_of,
    other_columns,
    resolved,
)
from app.training.request import TrainingRequest

MAX_DETAILS = 20
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
    request: TrainingRequest, source: Source, registry: ModelReader, step: Callable[[], None]
) -> tuple[TrainingRequest, Mapping[str, int]]:
    """Return the request with features, and the line in which a column first appears, for columns not in line 1.

    Read all names of an NDJSON file, unless its first line has those that the request names. Call `step` repeatedly
    meanwhile. Raises InvalidInput if columns are missing from the file, or do not fit.
    """
    table_format = BY_NAME.get(request.format)
    if table_format is None or not table_format.names_in_rows:
        return request, {}
    with explained(source, table_format):
        named = {*request.columns, *request.reading.columns, *request.reading.drop}
        if request.features and named <= set(table_format.column_names(source)):
            return request, {}
        lines = table_format.first_lines(source, step)
        check_named(request, lines)
        if request.features:
            _check_present(request, lines)
        else:
            request = _with_features_of(lines, request, registry)
        return request, {name: lines[name] for name in request.columns if lines[name] > 1}


def known_schema(request: TrainingRequest, current: Version | None) -> TableSchema | None:
    """Return the schema of the current version if the request's rows are read with it, and otherwise None.

    It has no numbers of rows, which do not change how rows are read.
    """
    if current is None or request.infer_columns:
        return None
    return replace(current.card.schema_of_rows, rows=0, incomplete_rows=0)


def known_dialect(request: TrainingRequest, current: Version | None) -> Dialect | None:
    """Return the dialect of the current version's rows, or None if it is to be guessed from the text.

    PLAIN may come from a format without text, and is easily guessed.
    """
    schema = known_schema(request, current)
    return None if schema is None or schema.dialect == PLAIN else schema.dialect


def known_signs(request: TrainingRequest, current: Version | None) -> ReadingOptions:
    """Return the options of reading, with the points between thousands that the current version's columns have."""
    schema = known_schema(request, current)
    return request.reading if schema is None else with_thousands(request.reading, (*schema.features, *schema.targets))


def left_out_before(request: TrainingRequest, current: Version | None) -> frozenset[str]:
    """Return the columns that the current version left out, and that the request's rows may have."""
    schema = known_schema(request, current)
    if schema is None:
        return frozenset()
    return frozenset(column.name for column in schema.left_out).difference(request.chosen)


def check_named(request: TrainingRequest, present: Collection[str]) -> None:
    """Raise InvalidInput if an option names a column that the rows do not have."""
    for option, names in (("drop", request.reading.drop), ("columns", request.reading.columns)):
        if missing := [name for name in names if name not in present]:
            near = did_you_mean(missing[0], present)
            where = "`drop`" if option == "drop" else "An option"
            message = f"{where} names the column {shown(missing[0])}, which the rows do not have.{near}"
            raise InvalidInput(
                f"{message} The columns are {listed(list(present))}.", [FieldError(message, parameter=option)]
            )


def _with_features_of(lines: Mapping[str, int], request: TrainingRequest, registry: ModelReader) -> TrainingRequest:
    current = current_version(registry, request.model, request.mode)
    excluded = {*request.columns, *request.reading.drop, *left_out_before(request, current)}
    dropped = tuple(LeftOut(name, "drop") for name in request.reading.drop)
    request = replace(request, left_out=dropped)
    features = [name for name in lines if name not in excluded]
    targets = [name for name in request.targets if name in lines]
    features = list(ordered_features(features, targets, request, current))
    # A missing name causes other errors, so it is reported first.
    _check_present(replace(request, features=tuple(features)), lines)
    return with_columns(request, features, current, registry, lines)


def _check_present(request: TrainingRequest, lines: Mapping[str, int]) -> None:
    if missing := [name for name in request.columns if name not in lines]:
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
    check_usable(features, request, lines or {})
    terms = request.terms
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
    request = replace(request, features=tuple(features), terms=terms)
    start_version = check_versions(request, current, registry)
    needs_current = request.mode != "replace" or request.promote == "if_better"
    # If the columns are inferred, the job may still leave some out, so the job makes this check.
    is_final = request.format == MATRIX or not request.infer_columns
    if is_final and needs_current and current is not None and not has_columns_of(current, request):
        option = "/mode" if request.mode != "replace" else "/promote"
        raise InvalidInput.at(option, other_columns(current.card, request))
    _check_start(request, start_version if is_final else None)
    return request


def check_versions(request: TrainingRequest, current: Version | None, registry: ModelReader) -> Version | None:
    """Return the version that a descent starts from, if any.

    Raises InvalidInput if a version that the request builds on does not exist, or cannot be built on as requested.
    """
    if request.mode != "replace":
        if current is None:
            raise InvalidInput.at("/mode", f"The model has no current version to {request.mode}.")
        check_has_rows(current.card)
        resolved(request, current.card)
        if request.mode == "forget":
            share_to_forget(current.card, request.trained_in, request.share)
    start = _start(request)
    if start == "current" and current is None:
        raise InvalidInput.at("/solver/start", NO_START)
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


def _check_start(request: TrainingRequest, version: Version | None) -> None:
    """Raise InvalidInput if the coefficients to start from, of the version or of the caller, do not fit the columns."""
    start = _start(request)
    if version is not None:
        check_start_columns(version, request, "/solver/start")
    elif isinstance(start, Start) and start.weights is not None and start.intercept is not None:
        columns, targets = request.terms or request.features, request.targets
        is_wide = request.format == MATRIX and any(len(row) != len(columns) for row in start.weights)
        if len(start.weights) != len(targets) or is_wide:
            raise InvalidInput.at("/solver/start/weights", f"Expected {len(targets)} rows of {len(columns)} weights.")
        if len(start.intercept) != len(targets):
            raise InvalidInput.at("/solver/start/intercept", f"Expected {len(targets)} values.")


def check_usable(
    features: Sequence[str], request: TrainingRequest, lines: Mapping[str, int], *, needs_targets: bool = True
) -> None:
    """Raise InvalidInput unless the names of the features and targets can be those of a model."""
    try:
        check_names(features, request.targets, needs_targets=needs_targets)
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


def ordered_features(
    features: Sequence[str], targets: Sequence[str], request: TrainingRequest, current: Version | None
) -> Sequence[str]:
    """Return the features of a file in the order of the current version, if they are the same.

    Raises InvalidInput if the columns have to be the same, and are not.
    """
    if current is None:
        return features
    if request.mode == "replace" and not request.infer_columns:
        return checked_features(features, targets, current.card, rows="The file has")
    return current.card.features if set(features) == set(current.card.features) else features


def checked_features(
    features: Sequence[str],
    targets: Sequence[str],
    current: ModelCard,
    *,
    rows: str = "The rows have",
    body: bool = False,
) -> Sequence[str]:
    """Return the features in the order of the current version.

    `rows` begins the message. With `body`, the message shows options as members of a JSON body. Raises InvalidInput
    with the added and the missing columns if features or targets differ from the current version's.
    """
    if set(features) == set(current.features) and set(targets) == set(current.targets):
        return current.features
    changes = column_changes(features, targets, current)
    model, infer, choose = "`model=NEW_NAME`", "`schema=infer`", "`features=`"
    if body:
        model, infer, choose = '`"model": "NEW_NAME"`', '`"schema": "infer"`', "`feature_names`"
    version = f'version {current.version} of the model "{current.model}"'
    raise InvalidInput(
        f"{rows} other columns than {version}. {changes_listed(changes)} Add {model} to train a new model on these "
        f"rows. To give the next version of this one other columns, add {infer}, or name its features with {choose}.",
        list(_details(changes, current, body=body))[:MAX_DETAILS],
    )


def _details(changes: Sequence[tuple[str, Sequence[str]]], current: ModelCard, *, body: bool) -> Iterator[FieldError]:
    for change, names in changes:
        verb = "does not have" if change.startswith("New") else "has"
        for name in names:
            message = f"{change.removesuffix('s')} {shown(name)}: version {current.version} {verb} it."
            if body:
                yield FieldError(message, pointer="/targets/0" if change.endswith("targets") else "/instances/0")
            else:
                yield FieldError(message, column=unquoted(name))
