"""Complete a training request with the columns of its uploaded file, next to those of the current version."""

import re
from collections.abc import Sequence
from dataclasses import replace

from app.data.batch import Source
from app.data.columns.schema import LeftOut
from app.data.content import explained
from app.data.formats import BY_NAME
from app.data.formats.file_set import in_files, known_format
from app.data.names import listed, missing_columns, shown
from app.data.rounding import MAX_WARNINGS
from app.errors import FieldError, InvalidInput
from app.registry.base import ModelReader
from app.registry.version_file import Version
from app.training.columns import (
    check_named,
    check_versions,
    checked_features,
    current_version,
    known_dialect,
    known_signs,
    left_out_before,
    ordered_features,
    with_columns,
)
from app.training.request import TrainingRequest

# Names that pandas and R give to the first column of a file, which has the row numbers.
_ROW_NUMBERS = re.compile(r"|Unnamed: 0(\.\d+)*|rownames")


def build_training_request(
    draft: TrainingRequest, features: Sequence[str] | None, current: Version | None, registry: ModelReader
) -> TrainingRequest:
    """Return the request with these features, after checking that the columns and versions it names exist and fit.

    If `features` is None, the job finds them in the rows and makes the remaining checks. Raises InvalidInput.
    """
    if draft.groups in draft.targets:
        raise InvalidInput.at("/validation/groups", "The column of groups is a target. Give a column of its own.")
    if features is not None:
        return with_columns(draft, features, current, registry)
    check_versions(draft, current, registry)
    return draft


def plan_file(draft: TrainingRequest, source: Source, registry: ModelReader, max_bytes: int) -> TrainingRequest:
    """Return the request with the columns of its file.

    The draft has the features and targets that the caller named, if any. The features of NDJSON are in all its lines,
    so unless the caller named them, the job finds them there. Raises InvalidInput if columns are missing or do not fit,
    and BodyTooLarge or InvalidInput if the rows would decode to more than `max_bytes`.
    """
    table_format = known_format(draft.format, source)
    current = current_version(registry, draft.model, draft.mode)
    with explained(source, table_format):
        dialect = table_format.dialect(source, known_signs(draft, current), known_dialect(draft, current))
    with in_files(source, table_format.first_row(dialect)), explained(source, table_format, dialect):
        header = table_format.column_names(source, dialect)
        index = index_left_out(header, table_format.index_columns(source), draft, current)
        if not table_format.names_in_rows:
            check_named(draft, header)
        draft = replace(draft, left_out=tuple(left_out(header, index, draft)))
        features, targets = _columns_of_file(header, draft, current)
        table_format.check_size(source, [*(features or ()), *targets, *draft.weight_and_groups], max_bytes)
    draft = replace(draft, targets=tuple(targets), warnings=(*draft.warnings, *index_warnings(index)))
    return build_training_request(draft, features, current, registry)


def check_dropped(draft: TrainingRequest, targets: Sequence[str], features: Sequence[str]) -> None:
    """Raise InvalidInput if `drop` names a column that is used. `features` are those that the caller named."""
    for names, use in (
        (targets, "is a target"),
        ([draft.weight], "holds the weights"),
        ([draft.groups], "holds the groups"),
        (features, "is also named in `features`"),
    ):
        if both := [name for name in draft.reading.drop if name in names]:
            message = f"`drop` names the column {shown(both[0])}, which {use}. Leave it out of `drop`."
            raise InvalidInput.of_parameter("drop", message)


def left_out(header: Sequence[str], index: Sequence[str], draft: TrainingRequest) -> list[LeftOut]:
    """Return the columns that are not features by their names: index columns and those in `drop`."""
    dropped = [name for name in draft.reading.drop if name in header]
    return [
        *(LeftOut(name, "index") for name in index if name not in dropped),
        *(LeftOut(name, "drop") for name in dropped),
    ]


def index_warnings(index: Sequence[str]) -> list[str]:
    """Return a warning for each of the first columns that are left out because they number or name the rows."""
    return [_index_warning(name) for name in index[:MAX_WARNINGS]]


def _index_warning(name: str) -> str:
    if not name:
        return "The first column has no name, so it was taken as the index of a data frame and left out."
    if _ROW_NUMBERS.fullmatch(name):
        reason = "has the name of the index of a data frame that was written with its index"
    else:
        reason = "is the index of the pandas frame from which the file was written"
    return f"The column {shown(name)} {reason}. It was left out. To train on it, name it in `features`."


def index_left_out(
    header: Sequence[str], index: Sequence[str], draft: TrainingRequest, current: Version | None
) -> list[str]:
    """Return the columns that are left out because they number the rows: the `index` of a frame, or by their names.

    A column that the request names, or that is a feature of the current version, is not left out.
    """
    if draft.features:
        return []
    named = {*draft.weight_and_groups, *(draft.targets or (current.card.targets if current else ())), *draft.chosen}
    if current is not None and not draft.infer_columns:
        named.update(current.card.features)
    names = list(index)
    for name in header:  # one file may have been written and read several times
        if not _ROW_NUMBERS.fullmatch(name) or name in named:
            break
        names.append(name)
    return [name for name in dict.fromkeys(names) if name not in named]


def _columns_of_file(
    header: Sequence[str], draft: TrainingRequest, current: Version | None
) -> tuple[Sequence[str] | None, Sequence[str]]:
    """Return features and targets among the columns of a file, without those that are left out.

    For NDJSON, `header` has only the names in the first line. The job checks whether all columns are in some line, and
    the features are None unless the caller named them.
    """
    targets = draft.targets or (current.card.targets if current else None)
    if not targets:
        message = (
            "No `targets` were given, and the model has no current version to take them from. Name the columns to "
            f"predict, as in ?targets=NAME,NAME. The file has {listed(header)}."
        )
        raise InvalidInput(message, [FieldError(message, parameter="targets")])
    check_dropped(draft, targets, draft.features)
    excluded = {*targets, *draft.weight_and_groups, *(column.name for column in draft.left_out)}
    excluded |= left_out_before(draft, current)
    features: Sequence[str] = draft.features or [name for name in header if name not in excluded]
    if BY_NAME[draft.format].names_in_rows:
        if not draft.features:
            _check_first_line(features, draft, targets, current)
        return draft.features or None, targets
    if "" in features and "" in header:
        raise _unnamed_column(header)
    present = set(header)
    # A single column means another separator, and a misspelled target is the more obvious error: report those first.
    if not draft.features and len(header) > 1 and present.issuperset(draft.targets):
        features = ordered_features(features, [name for name in targets if name in present], draft, current)
    needed = dict.fromkeys((*targets, *features, *draft.weight_and_groups))
    if missing := [name for name in needed if name not in present]:
        raise missing_columns(missing, header)
    return features, targets


def _unnamed_column(header: Sequence[str]) -> InvalidInput:
    number = list(header).index("") + 1
    hint = "Give it one."
    if header[0] == "":
        hint = "If it is the index that pandas wrote, use to_csv(index=False)."
    elif header[-1] == "":
        hint = "If the rows end with a comma, remove it."
    message = f"Column {number} has no name in the header, but each column needs one. {hint}"
    return InvalidInput(message, [FieldError(message, row=1)])


def _check_first_line(
    features: Sequence[str], draft: TrainingRequest, targets: Sequence[str], current: Version | None
) -> None:
    """Raise InvalidInput if the first line of NDJSON already has columns that the file may not have."""
    if current is None or draft.mode != "replace" or draft.infer_columns:
        return
    if not set(features) <= set(current.card.features):
        checked_features(features, targets, current.card, rows="Line 1 has")
