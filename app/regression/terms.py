"""Polynomial and interaction terms: columns made from features, in training and again at prediction."""

import re
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from app.regression.errors import InvalidTerms, TermFault
from app.regression.training_batch import Array

MAX_POWER = 20  # of all factors of a term together
MAX_TERM_LENGTH = 300  # two names and their powers, and some; a card repeats terms for every target

Factors: TypeAlias = tuple[tuple[int, int], ...]  # (index of a feature, power), multiplied


def parse_terms(terms: Sequence[str], features: Sequence[str]) -> list[Factors]:
    """What each term multiplies: "temp", "temp^2", "temp:rainfall", "temp^2:rainfall".

    A feature whose name has such signs in it can stand by itself. Raises InvalidTerms with the index of each term that
    is none, or stands twice.
    """
    parsed, faults = [], []
    places = {name: index for index, name in enumerate(features)}
    for position, term in enumerate(terms):
        factors = _factors(term, places)
        if factors is None:
            message = (
                f"A term is a feature, with a power of 1 to {MAX_POWER} or not, or several such joined by colons, "
                f"whose powers come to {MAX_POWER} at most and whose characters to {MAX_TERM_LENGTH}."
            )
        elif factors in parsed:
            message = "The same term stands twice."
        else:
            parsed.append(factors)
            continue
        faults.append(TermFault(position, message))
    if faults:
        raise InvalidTerms(faults)
    return parsed


def _factors(term: str, places: dict[str, int]) -> Factors | None:
    if term in places:
        return ((places[term], 1),)
    if len(term) > MAX_TERM_LENGTH:
        return None
    powers: dict[int, int] = {}
    for part in term.split(":"):
        name, _, power = part.rpartition("^") if re.search(r"\^\d{1,2}$", part) else (part, "", "1")
        if name not in places or int(power) < 1:
            return None
        powers[places[name]] = powers.get(places[name], 0) + int(power)
    return tuple(sorted(powers.items())) if sum(powers.values()) <= MAX_POWER else None


def expand(x: Array, terms: Sequence[Factors]) -> Array:
    """The terms' columns, (n, q), of rows x (n, p)."""
    with np.errstate(over="ignore", invalid="ignore"):  # what leaves the range is found where the columns are used
        columns = [np.prod([x[:, index] ** power for index, power in factors], axis=0) for factors in terms]
    return np.stack(columns, axis=1)
