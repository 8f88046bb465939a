"""Names of features and targets, and the rules they keep."""

from collections import Counter
from collections.abc import Sequence

from app.data.name_hints import MAX_NAME_LENGTH, invisible_character, listed, shown
from app.errors import FieldError, InvalidInput

__all__ = ["MAX_NAMES", "MAX_NAME_LENGTH", "RESERVED_TARGETS", "check_names"]

# Names that a card's metrics have beside the targets'.
RESERVED_TARGETS = ("mse", "optimum_mse", "cross_validation", "folds", "r2_about")
MAX_NAMES = 2_000  # the fit's work grows with the cube of their number
RULE = f"Expected a name of 1 to {MAX_NAME_LENGTH} printable characters."


def check_names(features: Sequence[str], targets: Sequence[str]) -> None:
    """Raises InvalidInput unless there is at least one of each, all distinct, short and printable.

    A feature cannot be called "intercept" nor a target "mse" and the like: these stand beside the names in a card.
    """
    details = [
        *_faults(features, "/feature_names", "feature", reserved=("intercept",)),
        *_faults(targets, "/target_names", "target", reserved=RESERVED_TARGETS),
    ]
    both = set(features) & set(targets)
    if both:
        message = f"A column cannot be both a feature and a target: {listed(sorted(both))}. Leave it out of one."
        details.append(FieldError(message, pointer="/target_names"))
    if details:
        raise InvalidInput(f"The names of features and targets are not usable. {details[0].message}", details)


def _faults(names: Sequence[str], pointer: str, kind: str, *, reserved: Sequence[str]) -> list[FieldError]:
    if not names:
        return [FieldError(f"At least one {kind} is needed.", pointer=pointer)]
    if len(names) > MAX_NAMES:
        return [FieldError(f"At most {MAX_NAMES} {kind}s are possible.", pointer=pointer)]
    found = []
    counts = Counter(names)
    for index, name in enumerate(names):
        place = f"{pointer}/{index}"
        if not name:
            found.append(FieldError(f"{RULE} Name {index + 1} is empty.", pointer=place))
        elif len(name) > MAX_NAME_LENGTH:
            found.append(FieldError(f"{RULE} Name {index + 1} has {len(name)}. Shorten it.", pointer=place))
        elif odd := invisible_character(name):
            found.append(FieldError(f"{RULE} {shown(name)} has {odd}. Remove it.", pointer=place))
        elif name in reserved:
            found.append(FieldError(f'A {kind} cannot be called "{name}". Rename it.', pointer=place))
        elif counts[name] > 1:
            found.append(FieldError(f"{shown(name)} is given more than once. Rename all but one.", pointer=place))
    return found
