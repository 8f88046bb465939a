"""Polynomial and interaction terms: columns made from features, in training and again in prediction."""

import re
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from app.regression.errors import InvalidTerms, TermFault
from app.regression.sufficient_statistics import Array

MAX_POWER = 20  # Largest sum of the powers of a term.
MAX_TERM_LENGTH = 300  # Characters of a term: two long names and their powers. A card repeats terms for each target.

Factors: TypeAlias = tuple[tuple[int, int], ...]  # (index of a feature, power) of each factor


def parse_terms(terms: Sequence[str], features: Sequence[str]) -> list[Factors]:
    """Return the factors of each term, such as "temp", "temp^2", "temp:rainfall" or "temp^2:rainfall".

    A feature whose name contains ":" or "^" can only be a term of its own.

    Raises InvalidTerms with the index of each term that is invalid or repeated.
    """
    parsed, faults = [], []
    indices = {name: index for index, name in enumerate(features)}
    for term_index, term in enumerate(terms):
        factors = _factors(term, indices)
        if factors is None:
            message = (
                "A term is a feature, or several joined by colons, each with or without a power. The powers of a term "
                f"add up to at most {MAX_POWER}, and a term has at most {MAX_TERM_LENGTH} characters."
            )
        elif factors in parsed:
            message = f'The term "{term}" is given twice. Give it once.'
            if term in indices and (":" in term or "^" in term):
                message = (
                    f'The term "{term}" is given twice. It is the column of this name, and not a product or a power '
                    "of other columns. Rename the column, or give the term once."
                )
        else:
            parsed.append(factors)
            continue
        faults.append(TermFault(term_index, message))
    if faults:
        raise InvalidTerms(faults)
    return parsed


def _factors(term: str, indices: dict[str, int]) -> Factors | None:
    if term in indices:
        return ((indices[term], 1),)
    if len(term) > MAX_TERM_LENGTH:
        return None
    powers: dict[int, int] = {}
    for part in term.split(":"):
        name, _, power = part.rpartition("^") if re.search(r"\^\d{1,2}$", part) else (part, "", "1")
        if name not in indices or int(power) < 1:
            return None
        powers[indices[name]] = powers.get(indices[name], 0) + int(power)
    return tuple(sorted(powers.items())) if sum(powers.values()) <= MAX_POWER else None


def expand(x: Array, terms: Sequence[Factors]) -> Array:
    """Return the columns of the terms, (n, q), for rows x, (n, p)."""
    with np.errstate(over="ignore", invalid="ignore"):  # overflow is reported by whatever uses the columns
        columns = [_product(x, factors) for factors in terms]
    return np.stack(columns, axis=1)


def _product(x: Array, factors: Factors) -> Array:
    if len(factors) == 1 and factors[0][1] == 1:
        return x[:, factors[0][0]]
    return np.asarray(np.prod([x[:, index] ** power for index, power in factors], axis=0))
