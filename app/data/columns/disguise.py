"""Find the option that reads numbers with signs or separators, for the message about a column that has some."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

from app.data.columns.gaps import GAP_TEXTS, SPACES, WEAK_GAP_TEXTS
from app.data.columns.numbers import parse_numbers
from app.data.columns.options import Decimal, Thousands
from app.data.columns.schema import Column
from app.data.lazy_pyarrow import pa

MAX_EXAMPLES = 2_000  # Distinct texts on which each option is tried.

_SIGNS = ("$", "€", "£", "¥", "₹", "%", "USD", "EUR", "GBP")
_STYLES: tuple[tuple[Decimal, Thousands], ...] = (
    (".", ""),
    (".", ","),
    (",", ""),
    (",", "."),
    (".", " "),
    (",", " "),
    (".", "'"),
    (".", "_"),
)
_WORDS = {" ": "space"}


def option_for_numbers(texts: Iterable[str], column: Column) -> str:
    """Return the options, as text, with which all texts are numbers; an empty text if there are none."""
    gaps = GAP_TEXTS | WEAK_GAP_TEXTS | {*column.na}
    examples = [text for text in islice(texts, MAX_EXAMPLES) if text.strip(SPACES) not in gaps]
    if not examples or not all(any(char.isdigit() for char in text) for text in examples):
        return ""
    cells = pa.array(examples, pa.string())
    for other in _variants(column, examples):
        if parse_numbers(cells, other).faults is None:
            return _option(column, other)
    return ""


def _variants(column: Column, examples: list[str]) -> Iterator[Column]:
    present = tuple(sign for sign in _SIGNS if any(_has(text, sign) for text in examples))
    strips = [column.strip, *([(*column.strip, *present)] if present else [])]
    for strip in strips:
        for decimal, thousands in _STYLES:
            yield replace(column, kind="number", strip=strip, decimal=decimal, thousands=thousands)


def _has(text: str, sign: str) -> bool:
    text = text.strip(SPACES).lstrip("+-")
    return text.startswith(sign) or text.endswith(sign)


def _option(column: Column, other: Column) -> str:
    options = []
    if signs := [sign for sign in other.strip if sign not in column.strip]:
        options.append(f"`strip={','.join(signs)}`")
    if other.decimal != column.decimal:
        options.append(f"`decimal={other.decimal}`")
    if other.thousands != column.thousands:
        options.append(f"`thousands={_WORDS.get(other.thousands, other.thousands)}`")
    return " with ".join(options)
