"""What a training request comes to, beside the version that is current: its columns, its solver, its record."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from app.data.json_rows import are_objects
from app.data.names import check_names
from app.data.training_rows import Format
from app.errors import Detail, InvalidInput, ModelFileInvalid, ModelNotFound, NotFound
from app.jobs.capabilities import check_device
from app.jobs.inheritance import check_base
from app.jobs.training_request import TrainingRequest
from app.registry.version_file import Version
from app.regression.solvers import GradientDescent, Solver, Start
from app.regression.terms import parse_terms
from app.web.services import Services
from app.web.training_options import FileOptions, TrainingOptions, TrainRequest

MAX_COEFFICIENTS = 200_000  # a card says six things of each

# Names of features, terms and targets.
Columns: TypeAlias = tuple[Sequence[str], Sequence[str], Sequence[str]]


def current_version(found: Services, options: TrainingOptions) -> Version | None:
    """The current version of the model that is to be trained, if it has one.

    A damaged one counts as none where it is to be replaced: that mends it.
    """
    try:
        return found.registry.current(options.model or found.default_model)
    except ModelNotFound:
        return None
    except ModelFileInvalid:
        if options.mode != "replace":
            raise
        return None


def request_of(
    found: Services,
    options: TrainingOptions,
    *,
    features: Sequence[str],
    targets: Sequence[str],
    upload: str,
    form: Format,
    weight: str | None,
    fingerprint: str,
) -> TrainingRequest:
    """The request as it is recorded, once all of it is known to exist and to fit together."""
    _check_names(features, targets, form)
    current = current_version(found, options)
    terms = _terms(options, current, features)
    if len(terms or features) * len(targets) > MAX_COEFFICIENTS:
        raise InvalidInput(
            f"{len(terms or features)} columns for {len(targets)} targets: a model has at most {MAX_COEFFICIENTS} "
            "coefficients."
        )
    _check_mode(options, current, (features, terms, targets))
    request = TrainingRequest(
        model=options.model or found.default_model,
        upload=upload,
        format=form,
        features=tuple(features),
        targets=tuple(targets),
        solver=_solver(found, options, current, (features, terms, targets)),
        promote=options.promote,
        fingerprint=fingerprint,
        mode=options.mode,
        decay=options.decay,
        folds=options.folds,
        choose_l2=options.chooses_l2,
        terms=tuple(terms),
        missing=options.missing,
        weight=weight,
        weight_kind=options.weight_kind,
        inherits=options.inherits,
        trained_in=options.trained_in,
        share=options.share,
    )
    if current is not None and options.mode != "replace":
        check_base(request, current.card)
    return request


def _check_names(features: Sequence[str], targets: Sequence[str], form: Format) -> None:
    try:
        check_names(features, targets)
    except InvalidInput as error:
        if form == "matrix":
            raise
        # They stand in no list of the body, but in the file's header.
        raise InvalidInput(error.message, [Detail(detail.message, row=1) for detail in error.details]) from None


def names_of_rows(asked: TrainRequest, current: Version | None) -> tuple[Sequence[str], Sequence[str]]:
    """Features and targets of rows that came as JSON."""
    card = current.card if current else None
    features = _names(asked.instances, asked.feature_names, card.features if card else None, "feature")
    return features, _names(asked.targets, asked.target_names, card.targets if card else None, "target")


def _names(rows: Sequence[Any], given: Sequence[str] | None, known: Sequence[str] | None, kind: str) -> Sequence[str]:
    """The columns' names: as given, or the model's, or of a new model those of the first object."""
    if given is not None:
        return given
    if known is None and are_objects(rows):
        return list(rows[0])
    if known is None:
        raise InvalidInput.at(f"/{kind}_names", f"A new model from arrays needs {kind}_names.")
    return known


def columns_of_file(
    header: Sequence[str], options: FileOptions, current: Version | None
) -> tuple[Sequence[str], Sequence[str]]:
    """Features and targets among the columns of a file."""
    targets = options.targets or (current.card.targets if current else None)
    if not targets:
        raise InvalidInput(
            "Which columns are the targets? Say so with ?targets=...",
            [Detail("A new model needs `targets` in the query.")],
        )
    weight = [options.weight] if options.weight is not None else []
    others = {*targets, *weight}
    features = options.features or [name for name in header if name not in others]
    if "" in features:
        hint = "; to_csv(index=False) keeps pandas from writing its index." if header[0] == "" else "."
        message = f"Column {list(header).index('') + 1} has no name in the header{hint}"
        raise InvalidInput(message, [Detail(message, row=1)])
    present = set(header)
    missing = [name for name in (*targets, *features, *weight) if name not in present]
    if missing:
        hint = " Only one column was found: is the separator a comma?" if len(header) == 1 else ""
        details = [_missing_column(name, header) for name in missing if name.isprintable()]
        raise InvalidInput(f"Columns are missing from the file.{hint}", details[:20])
    return features, targets


def _missing_column(name: str, header: Sequence[str]) -> Detail:
    spaced = any(name == column.strip() for column in header)
    hint = " There is one of that name with spaces around it." if spaced else ""
    return Detail(f'There is no column "{name}".{hint}', row=1)


def _terms(options: TrainingOptions, current: Version | None, features: Sequence[str]) -> Sequence[str]:
    if options.terms is None:
        return current.card.terms if current and options.mode != "replace" else []
    parse_terms(options.terms, features)
    return options.terms


def _same_columns(version: Version, columns: Columns) -> bool:
    card = version.card
    return [list(names) for names in columns] == [list(card.features), list(card.terms), list(card.targets)]


def _check_mode(options: TrainingOptions, current: Version | None, columns: Columns) -> None:
    """An update, its reverse and a comparison need a version of the same columns to begin with."""
    if options.mode == "replace" and (options.promote != "if_better" or current is None):
        return
    if current is None:
        raise InvalidInput.at("/mode", f"The model has no current version to {options.mode}.")
    if not _same_columns(current, columns):
        option = "/mode" if options.mode != "replace" else "/promote"
        raise InvalidInput.at(option, "The current version has other features, terms or targets than these rows.")


def _solver(found: Services, options: TrainingOptions, current: Version | None, columns: Columns) -> Solver:
    """The solver as it is recorded, once its device and its start are known to exist and fit."""
    model = options.model or found.default_model
    solver = options.solver.solver(current.card.version if current else None)
    check_device(found.capabilities, solver.device)
    if not isinstance(solver, GradientDescent):
        return solver
    start = solver.start
    if isinstance(start, Start) and start.version is not None:
        try:
            version = found.registry.version(model, start.version)
        except NotFound as error:
            raise InvalidInput.at("/solver/start/version", error.message) from None
        if not _same_columns(version, columns):
            raise InvalidInput.at(
                "/solver/start", f"Version {start.version} has other features, terms or targets than these rows."
            )
    elif isinstance(start, Start):
        assert start.weights is not None
        assert start.intercept is not None
        features, targets = columns[1] or columns[0], columns[2]
        if len(start.weights) != len(targets) or any(len(row) != len(features) for row in start.weights):
            raise InvalidInput.at("/solver/start/weights", f"Expected {len(targets)} rows of {len(features)} weights.")
        if len(start.intercept) != len(targets):
            raise InvalidInput.at("/solver/start/intercept", f"Expected {len(targets)} values.")
    return solver
