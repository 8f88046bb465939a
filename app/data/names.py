"""Column names: the rules for features and targets, and how messages show a name or the one that was probably meant."""

import difflib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice

from app.errors import FieldError, InvalidInput

MAX_NAME_LENGTH = 128  # Characters of a feature's or a target's name.
MAX_NAMES = 2_000  # Features or targets, because the fit's work grows with the cube of their number.
RESERVED_TARGETS = ("mse", "optimum_mse", "cross_validation", "folds", "r2_about")  # Names of a card's own metrics.
MAX_SHOWN = 100  # Characters of a name in a message.
MAX_LISTED = 20  # Names in a message, and faults in a response.
MAX_COMPARED = 200  # Names of similar length that are compared with a name.
MAX_PRESENT = 500  # Names of an object that are inspected.

UNKNOWN_LEVEL = "The level is not known."  # First sentence of a message that goes on to repeat the level.
NULL_RESULTS = "or get null results with `unknown=null`."  # End of such a message for a prediction.

_RULE = f"Expected a name of 1 to {MAX_NAME_LENGTH} printable characters."


def check_names(features: Sequence[str], targets: Sequence[str], *, needs_targets: bool = True) -> None:
    """Raise InvalidInput unless there is at least one of each, and all are distinct, short and printable.

    Without `needs_targets`, there may be no targets.

    A feature cannot be called "intercept", nor a target "mse" and the like, because a card has these names itself.
    """
    details = [
        *_faults(features, "/feature_names", "feature", reserved=("intercept",)),
        *(_faults(targets, "/target_names", "target", reserved=RESERVED_TARGETS) if targets or needs_targets else ()),
    ]
    if both := set(features) & set(targets):
        message = f"A column cannot be both a feature and a target: {listed(sorted(both))}. Leave it out of one."
        details.append(FieldError(message, pointer="/target_names"))
    if details:
        raise InvalidInput(f"The names of features and targets are not usable. {details[0].message}", details)


def _faults(names: Sequence[str], pointer: str, role: str, *, reserved: Sequence[str]) -> list[FieldError]:
    if not names:
        return [FieldError(f"At least one {role} is needed.", pointer=pointer)]
    if len(names) > MAX_NAMES:
        return [FieldError(f"At most {MAX_NAMES} {role}s are possible.", pointer=pointer)]
    counts = Counter(names)
    faults = ((index, _fault(name, index, role, counts, reserved)) for index, name in enumerate(names))
    return [FieldError(fault, pointer=f"{pointer}/{index}") for index, fault in faults if fault]


def _fault(name: str, index: int, role: str, counts: Counter[str], reserved: Sequence[str]) -> str | None:
    if not name:
        return f"{_RULE} Name {index + 1} is empty."
    if len(name) > MAX_NAME_LENGTH:
        return f"{_RULE} Name {index + 1} has {len(name)}. Shorten it."
    if odd := invisible_character(name):
        return f"{_RULE} {shown(name)} has {odd}. Remove it."
    if name in reserved:
        return f'A {role} cannot be called "{name}". Rename it.'
    return f"{shown(name)} is given more than once. Rename all but one." if counts[name] > 1 else None


def shown(name: str) -> str:
    """Return a name in quotes, cut at MAX_SHOWN characters, with invisible characters escaped."""
    return f'"{unquoted(name)}"'


def unquoted(name: str) -> str:
    """Return a name cut at MAX_SHOWN characters and at the first line break, with invisible characters escaped.

    The text after a line break may be cells, because a quote in the header may have no end.
    """
    begin = name[:MAX_SHOWN].split("\n", 1)[0]
    text = "".join(char if char.isprintable() else _escaped(char) for char in begin)
    return text if len(begin) == len(name) else f"{text}..."


def spelt(name: str) -> str:
    """Return a name in quotes with every character outside ASCII escaped, to distinguish names that look the same."""
    text = "".join(char if char.isascii() and char.isprintable() else _escaped(char) for char in name[:MAX_SHOWN])
    return f'"{text}"' if len(name) <= MAX_SHOWN else f'"{text}..."'


def listed(names: Sequence[str]) -> str:
    """Return names separated by commas, at most MAX_LISTED of them."""
    more = len(names) - MAX_LISTED
    return ", ".join(map(shown, names[:MAX_LISTED])) + (f" and {more} more" if more > 0 else "")


def without_level(message: str) -> str:
    """Return the message of one fault as the message of the whole error has it, which is logged: without a level."""
    if not message.startswith(UNKNOWN_LEVEL):
        return message
    return f"{UNKNOWN_LEVEL} Send a known level, {NULL_RESULTS}" if NULL_RESULTS in message else UNKNOWN_LEVEL


def invisible_character(name: str) -> str | None:
    """Return a description of the first invisible character of a name and its position, or None."""
    for position, char in enumerate(name, 1):
        if not char.isprintable():
            title = unicodedata.name(char, "a control character").lower()
            return f"the invisible character U+{ord(char):04X} ({title}) at position {position}"
    return None


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the most similar known name, or None if none is similar."""
    if len(name) > MAX_NAME_LENGTH:
        return None
    reach = max(2, len(name) // 3)
    candidates = islice((other for other in known if abs(len(other) - len(name)) <= reach), MAX_COMPARED)
    folded = {other.casefold(): other for other in candidates}
    matches = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.7)
    return folded[matches[0]] if matches else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean ...?" with the most similar known name, or an empty string."""
    similar = nearest(name, known)
    return "" if similar is None else f" Did you mean {shown(similar)}?"


def missing_columns(missing: Sequence[str], present: Sequence[str], *, has_header: bool = True) -> InvalidInput:
    """Return the error for columns that a file lacks, each with the column that was probably meant."""
    row = 1 if has_header else None
    if any("\n" in name for name in present):
        message = (
            "A column name in the header has a line break, so a quote in the header may have no end. Expected "
            f"{listed(missing)}. Close the quote, or remove it."
        )
        return InvalidInput(message, [FieldError(message, row=row)])
    spellings = _Spellings(present)
    details = [
        FieldError(
            f"There is no column {shown(name)}.{spellings.hint(name)}",
            row=row,
            column=None if has_header or not name.isprintable() else name,
        )
        for name in missing[:MAX_LISTED]
    ]
    columns = "column" if len(missing) == 1 else "columns"
    count = f"{len(present)} column{'s' * (len(present) != 1)}"
    return InvalidInput(
        f"Columns are missing: {columns} {listed(missing)} expected, but the file has {count}, {listed(present)}. "
        "Rename the columns of the file, or add those that are missing.",
        details,
    )


def extra_columns(extra: Sequence[str], present: Sequence[str], features: Sequence[str]) -> InvalidInput:
    """Return the error for columns of a file that are not features, each with its place."""
    places = {name: number for number, name in enumerate(present, 1)}
    details = [
        FieldError(f"Column {places[name]}, {shown(name)}, is not a feature.", row=1, column=name)
        for name in extra[:MAX_LISTED]
    ]
    fault, remedy = "There is 1 column that is not a feature", "Remove it."
    if len(extra) > 1:
        fault = f"There are {len(extra)} columns that are not features"
        remedy = "Remove them."
    elif "" in extra:
        remedy = "Remove it; pandas writes no index with to_csv(index=False)."
    kept = "To pass columns through to the results, name them in `keep`."
    return InvalidInput(f"{fault}: {listed(extra)}. Expected {listed(features)}. {remedy} {kept}", details)


def instead(name: str, present: Iterable[str]) -> str:
    """Return a sentence on the present name that was probably meant, with a space before it; or nothing."""
    return _Spellings(list(islice(present, MAX_PRESENT)), numbered=False).hint(name)


class _Spellings:
    """Existing names by their normalised spelling. Columns of a file are numbered."""

    def __init__(self, present: Sequence[str], *, numbered: bool = True) -> None:
        self._present = present
        self._numbered = numbered
        self._places: dict[str, int] = {}
        for place, name in enumerate(present):
            if len(name) <= MAX_NAME_LENGTH:
                self._places.setdefault(_normalised(name), place)

    def hint(self, name: str) -> str:
        """Return a sentence on the present name that was probably meant, with a space before it; or nothing."""
        place = self._places.get(_normalised(name)) if len(name) <= MAX_NAME_LENGTH else None
        if place is None:
            similar = nearest(name, self._present)
            if similar is None:
                return ""
            return f"{self._column(self._present.index(similar), shown(similar))} is similar. Rename it if it is meant."
        other = self._present[place]
        column = self._column(place, spelt(other))
        if other.strip(" ") == name.strip(" "):
            return f"{column} has that name with spaces around it. Remove the spaces."
        if odd := invisible_character(other) or invisible_character(name):
            return f"{column} looks the same, but there is {odd}. Remove it."
        if unicodedata.normalize("NFC", other) == unicodedata.normalize("NFC", name):
            return (
                f"{column} looks the same as {spelt(name)}, but is composed of other characters (Unicode NFC or NFD). "
                "Write both names in NFC."
            )
        return f"{column} differs in capitals or spaces. Use the same spelling."

    def _column(self, place: int, name: str) -> str:
        return f" Column {place + 1}, named {name}," if self._numbered else f" {name}"


def _normalised(name: str) -> str:
    """Return a name without spaces and invisible characters, casefolded and in NFC."""
    visible = "".join(char for char in name if char.isprintable() and char != " ")
    return unicodedata.normalize("NFC", visible).casefold()


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - JSON's short escapes
