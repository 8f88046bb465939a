"""What a training request comes to, beside the version that is current: its columns, its solver, its record."""

from collections.abc import Sequence
from typing import Any

from app.data.batch import Header
from app.data.formats.base import TableFormat
from app.data.json_faults import are_objects
from app.data.names import listed, missing_columns, shown
from app.data.rounding import MAX_WARNINGS
from app.errors import FieldError, InvalidInput
from app.jobs.host.devices import check_device
from app.registry.version_file import Version
from app.training import columns
from app.training.columns import check_versions, with_columns
from app.training.request import TrainingRequest
from app.training.same_columns import checked_features
from app.web.schemas.train import FileOptions, TrainingOptions, TrainRequest
from app.web.state import Services


def current_version(found: Services, options: TrainingOptions) -> Version | None:
    """The current version of the model that is to be trained, if it has one that can be read."""
    return columns.current_version(found.registry, options.model or found.default_model, options.mode)


def build_training_request(
    found: Services,
    options: TrainingOptions,
    *,
    features: Sequence[str] | None,
    targets: Sequence[str],
    upload: str,
    form: str,
    weight: str | None,
    fingerprint: str,
    header: Header | None = None,
) -> TrainingRequest:
    """The request as it is recorded, once all of it is known to exist and to fit together.

    Without `features` the job finds them in the rows, and makes the checks that need them.
    """
    if options.division.groups in targets:
        raise InvalidInput.at("/validation/groups", "The column of groups is a target. Give a column of its own.")
    current = current_version(found, options)
    solver = options.solver.solver()
    check_device(found.capabilities, solver.device)
    request = TrainingRequest(
        model=options.model or found.default_model,
        upload=upload,
        format=form,
        features=(),
        targets=tuple(targets),
        solver=solver,
        promote=options.promote,
        fingerprint=fingerprint,
        mode=options.mode,
        decay=options.decay,
        folds=options.folds,
        fold_seed=options.division.fold_seed,
        groups=options.division.groups,
        unseen=options.unseen,
        choose_l2=options.chooses_l2,
        terms=tuple(options.terms or ()),
        missing=options.missing,
        weight=weight,
        weight_kind=options.weight_kind,
        inherits=options.inherits,
        trained_in=options.trained_in,
        share=options.share,
        header=header,
        infer_columns=options.schema_ == "infer",
    )
    if features is not None:
        return with_columns(request, features, current, found.registry)
    check_versions(request, current, found.registry)
    return request


def names_of_rows(asked: TrainRequest, current: Version | None) -> tuple[Sequence[str], Sequence[str]]:
    """Features and targets of rows that came as JSON."""
    card = current.card if current and asked.schema_ is None else None
    features = _names(asked.instances, asked.feature_names, card.features if card else None, "feature")
    if asked.feature_names is None and card is None:
        features = [name for name in features if name != asked.division.groups]
    targets = _names(asked.targets, asked.target_names, card.targets if card else None, "target")
    if card is not None and asked.mode == "replace" and asked.feature_names is None:
        # Only objects bring names that nobody chose.
        found = list(asked.instances[0]) if are_objects(asked.instances) else card.features
        if asked.division.groups not in card.features:
            found = [name for name in found if name != asked.division.groups]
        named = asked.target_names is None and are_objects(asked.targets)
        checked_features(found, list(asked.targets[0]) if named else card.targets, card, body=True)
    return features, targets


def _names(rows: Sequence[Any], given: Sequence[str] | None, known: Sequence[str] | None, kind: str) -> Sequence[str]:
    """The columns' names: as given, or the model's, or of a new model those of the first object."""
    if given is not None:
        return given
    if known is None and are_objects(rows):
        return list(rows[0])
    if known is None:
        message = (
            f"These rows are arrays, and no current version names their values: there is none, or `schema: infer` "
            f"ignores it. Add `{kind}_names`."
        )
        raise InvalidInput.at(f"/{kind}_names", message)
    return known


def index_left_out(index: Sequence[str], options: FileOptions, current: Version | None) -> list[str]:
    """Return the columns that are left out because they are the index of a pandas frame.

    One that the request names, or that the current version has as a feature, is a column like any other.
    """
    if options.features:
        return []
    targets = options.targets or (current.card.targets if current else ())
    named = {*targets, options.weight, options.division.groups}
    if current is not None and options.schema_ is None:
        named.update(current.card.features)
    return [name for name in index if name not in named]


def index_warnings(left_out: Sequence[str]) -> tuple[str, ...]:
    """Return a warning for each column that was left out as an index."""
    return tuple(
        f"The column {shown(name)} is the index of the pandas frame that the file was made from. It was left out. To "
        "train on it, name it in `features`."
        for name in left_out[:MAX_WARNINGS]
    )


def columns_of_file(
    header: Sequence[str],
    table_format: TableFormat,
    options: FileOptions,
    current: Version | None,
    index: Sequence[str] = (),
) -> tuple[Sequence[str] | None, Sequence[str]]:
    """Features and targets among the columns of a file, without those of `index`.

    `header` has only the names in the first line of NDJSON. Unless they are given, its features are not known yet:
    None. Whether all columns are in one of its lines is known to the job.
    """
    targets = options.targets or (current.card.targets if current else None)
    if not targets:
        message = (
            "No `targets` were given, and the model has no current version to take them from. Name the columns to "
            f"predict, as in ?targets=NAME,NAME. The file has {listed(header)}."
        )
        raise InvalidInput(message, [FieldError(message, parameter="targets")])
    if table_format.names_in_rows:
        _check_first_line(header, options, targets, current)
        return options.features, targets
    weight = [options.weight] if options.weight is not None else []
    groups = [options.division.groups] if options.division.groups is not None else []
    others = {*targets, *weight, *groups, *index}
    features: Sequence[str] = options.features or [name for name in header if name not in others]
    if "" in features and "" in header:
        place = list(header).index("") + 1
        hint = "Give it one."
        if header[0] == "":
            hint = "If it is the index that pandas wrote, use to_csv(index=False)."
        elif header[-1] == "":
            hint = "If the rows end with a comma, remove it."
        message = f"Column {place} has no name in the header, but each column needs one. {hint}"
        raise InvalidInput(message, [FieldError(message, row=1)])
    present = set(header)
    # One column means another separator, and a target that was misspelled is the plainer fault.
    are_read = len(header) > 1 and present.issuperset(options.targets or ())
    if not options.features and current is not None and are_read:
        features = _in_order(features, [name for name in targets if name in present], options, current)
    missing = [name for name in dict.fromkeys((*targets, *features, *weight, *groups)) if name not in present]
    if missing:
        raise missing_columns(missing, header)
    return features, targets


def _in_order(features: Sequence[str], targets: Sequence[str], options: FileOptions, current: Version) -> Sequence[str]:
    """Return the features of a file in the order of the current version, if they are the same.

    Raises InvalidInput if the columns have to be the same, and are not.
    """
    if options.mode == "replace" and options.schema_ is None:
        return checked_features(features, targets, current.card, rows="The file has")
    return current.card.features if set(features) == set(current.card.features) else features


def _check_first_line(
    names: Sequence[str], options: FileOptions, targets: Sequence[str], current: Version | None
) -> None:
    """Raise InvalidInput if a line of NDJSON already has columns that the file may not have."""
    if current is None or options.mode != "replace" or options.schema_ is not None or options.features:
        return
    others = {*targets, options.weight, options.division.groups}
    features = [name for name in names if name not in others]
    if not set(features) <= set(current.card.features):
        checked_features(features, targets, current.card, rows="Line 1 has")
