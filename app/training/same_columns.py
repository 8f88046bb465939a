"""The rule for a model that exists: rows have the columns of its current version, unless the request allows others.

Without this rule, a column more or less in a file would silently change the inputs of the model.
"""

from collections.abc import Iterator, Sequence

from app.data.names import shown, unquoted
from app.errors import FieldError, InvalidInput
from app.registry.model_card import ModelCard
from app.registry.version_file import Version
from app.training.request import TrainingRequest

MAX_NAMES = 10  # Most names in a list of the message.
MAX_DETAILS = 20


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
    changes = [
        ("New features", _without(features, current.features)),
        ("Missing features", _without(current.features, features)),
        ("New targets", _without(targets, current.targets)),
        ("Missing targets", _without(current.targets, targets)),
    ]
    listed = " ".join(f"{change}: {_listed(names)}." for change, names in changes if names)
    model, infer, choose = "`model=NEW_NAME`", "`schema=infer`", "`features=`"
    if body:
        model, infer, choose = '`"model": "NEW_NAME"`', '`"schema": "infer"`', "`feature_names`"
    raise InvalidInput(
        f'{rows} other columns than version {current.version} of the model "{current.model}". {listed} '
        f"Add {model} to train a new model on these rows. To give the next version of this one other columns, add "
        f"{infer}, or name its features with {choose}.",
        list(_details(changes, current, body=body))[:MAX_DETAILS],
    )


def _without(names: Sequence[str], others: Sequence[str]) -> list[str]:
    left_out = set(others)
    return [name for name in names if name not in left_out]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(unquoted, names[:MAX_NAMES])) + (", ..." if len(names) > MAX_NAMES else "")


def _details(changes: Sequence[tuple[str, Sequence[str]]], current: ModelCard, *, body: bool) -> Iterator[FieldError]:
    for change, names in changes:
        verb = "does not have" if change.startswith("New") else "has"
        for name in names:
            message = f"{change.removesuffix('s')} {shown(name)}: version {current.version} {verb} it."
            if body:
                yield FieldError(message, pointer="/targets/0" if change.endswith("targets") else "/instances/0")
            else:
                yield FieldError(message, column=unquoted(name))
