"""Names of features and targets, and the rules they keep."""

from collections import Counter
from collections.abc import Sequence

from app.errors import Detail, InvalidInput

MAX_NAME_LENGTH = 128
# Names that a card's metrics have beside the targets'.
RESERVED_TARGETS = ("mse", "optimum_mse", "cross_validation", "folds", "r2_about")
SHOWN_LENGTH = 100  # characters of a name in a message
MAX_NAMES = 2_000  # the fit's work grows with the cube of their number


def shown(name: str) -> str:
    """Return a name for a message: cut at SHOWN_LENGTH characters, those that cannot be printed escaped."""
    cut = name if len(name) <= SHOWN_LENGTH else f"{name[:SHOWN_LENGTH]}..."
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in cut)


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
        details.append(Detail("A column cannot be both a feature and a target.", pointer="/target_names"))
    if details:
        raise InvalidInput("The names of features and targets are not usable.", details)


def _faults(names: Sequence[str], pointer: str, kind: str, *, reserved: Sequence[str]) -> list[Detail]:
    if not names:
        return [Detail(f"At least one {kind} is needed.", pointer=pointer)]
    if len(names) > MAX_NAMES:
        return [Detail(f"At most {MAX_NAMES} {kind}s are possible.", pointer=pointer)]
    found = []
    counts = Counter(names)
    for index, name in enumerate(names):
        place = f"{pointer}/{index}"
        if not name or len(name) > MAX_NAME_LENGTH or not name.isprintable():
            found.append(Detail(f"A name has 1 to {MAX_NAME_LENGTH} printable characters.", pointer=place))
        elif name in reserved:
            found.append(Detail(f'A {kind} cannot be called "{name}".', pointer=place))
        elif counts[name] > 1:
            found.append(Detail("The same name stands twice.", pointer=place))
    return found
