"""The rule for training a model that exists: rows have the columns of its current version, unless the request says so.

Otherwise a column more or less in a file would silently change what the model is asked for.
"""

from collections.abc import Iterator, Sequence

from app.data.names import shown, unquoted
from app.errors import FieldError, InvalidInput
from app.registry.model_card import ModelCard

MAX_NAMES = 10  # of each kind, in a message
MAX_DETAILS = 20


def checked_features(
    features: Sequence[str],
    targets: Sequence[str],
    current: ModelCard,
    *,
    rows: str = "The rows have",
    body: bool = False,
) -> Sequence[str]:
    """Return the features in the order that the current version has them.

    `rows` begins the message, and `body` says that options are in a JSON body. Raises InvalidInput with the columns
    that were added and those that are missing, if features or targets are others than the current version's.
    """
    if set(features) == set(current.features) and set(targets) == set(current.targets):
        return current.features
    found = [
        ("New features", _without(features, current.features)),
        ("Missing features", _without(current.features, features)),
        ("New targets", _without(targets, current.targets)),
        ("Missing targets", _without(current.targets, targets)),
    ]
    listed = " ".join(f"{kind}: {_listed(names)}." for kind, names in found if names)
    model, infer, choose = "`model=NEW_NAME`", "`schema=infer`", "`features=`"
    if body:
        model, infer, choose = '`"model": "NEW_NAME"`', '`"schema": "infer"`', "`feature_names`"
    raise InvalidInput(
        f'{rows} other columns than version {current.version} of the model "{current.model}". {listed} '
        f"Add {model} to train a new model on these rows. To give the next version of this one other columns, add "
        f"{infer}, or name its features with {choose}.",
        list(_details(found, current, body=body))[:MAX_DETAILS],
    )


def _without(names: Sequence[str], others: Sequence[str]) -> list[str]:
    left_out = set(others)
    return [name for name in names if name not in left_out]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(unquoted, names[:MAX_NAMES])) + (", ..." if len(names) > MAX_NAMES else "")


def _details(found: Sequence[tuple[str, Sequence[str]]], current: ModelCard, *, body: bool) -> Iterator[FieldError]:
    for kind, names in found:
        verb = "does not have" if kind.startswith("New") else "has"
        for name in names:
            message = f"{kind.removesuffix('s')} {shown(name)}: version {current.version} {verb} it."
            if body:
                yield FieldError(message, pointer="/targets/0" if kind.endswith("targets") else "/instances/0")
            else:
                yield FieldError(message, column=unquoted(name))
