"""Sums of products of features, which readers of formats build while they follow a file's steps.

A file scales, encodes and multiplies columns in many ways. Each way that keeps the model linear ends as such a sum.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import fsum, isfinite
from typing import Literal, NamedTuple, TypeAlias

from app.errors import InvalidInput
from app.exchange.pieces import count_pieces
from app.regression.terms import MAX_POWER

MAX_PARTS = 4_000  # Most products in one sum.


class Atom(NamedTuple):
    """A factor of a product. `label` is a level, or the number in place of a gap.

    number: the feature, NaN if it is missing. filled: the feature, or `label` if it is missing.
    level: 1 if the feature has this level, otherwise 0. missing: 1 if the feature is missing, otherwise 0.
    """

    feature: int  # place among the features of the file
    kind: Literal["number", "filled", "level", "missing"]
    label: float | str = ""

    @property
    def is_indicator(self) -> bool:
        return self.kind in ("level", "missing")


Monomial: TypeAlias = tuple[tuple[Atom, int], ...]  # factors with their powers, in order; () is 1


class Part(NamedTuple):
    """coefficient (product - centre)."""

    coefficient: float
    centre: float = 0.0


class Centred(NamedTuple):
    """Factors from which the file subtracted a number, and that were multiplied out, but not scaled to about 1."""

    number: float = 0.0  # the largest that was subtracted
    degree: int = 0  # most such factors in one product


@dataclass(frozen=True)
class Sum:
    """A constant plus parts. The centre of a part is kept apart, because adding it up would cost digits."""

    parts: dict[Monomial, Part]
    constant: float = 0.0
    cancelled: float = 0.0  # about the largest terms that cancel near the centres of factors that were multiplied out
    centred: Centred = Centred()  # noqa: RUF009 - immutable

    @classmethod
    def of(cls, atom: Atom) -> "Sum":
        return cls({((atom, 1),): Part(1.0)})

    @property
    def plain(self) -> "Sum":
        """The same sum without centres."""
        moved = (-part.coefficient * part.centre for part in self.parts.values())
        parts = {monomial: Part(part.coefficient) for monomial, part in self.parts.items()}
        # A column without a factor is not scaled to about 1, so its centre says nothing about the digits.
        scaled = (part for part in self.parts.values() if abs(part.coefficient) != 1)
        centres = sum(2 * abs(part.coefficient * part.centre) for part in scaled)
        others = [abs(part.centre) for part in self.parts.values() if part.centre and abs(part.coefficient) == 1]
        centred = _largest([self.centred, Centred(max(others), 1)]) if others else self.centred
        return Sum(parts, total((self.constant, *moved)), self.cancelled + centres, centred)

    @property
    def atom(self) -> Atom | None:
        """The atom, if this sum consists of one atom alone."""
        if self.constant or len(self.parts) != 1:
            return None
        ((monomial, part),) = self.parts.items()
        return monomial[0][0] if part == (1.0, 0.0) and len(monomial) == 1 and monomial[0][1] == 1 else None

    def renumbered(self, places: Mapping[int, int]) -> "Sum":
        """Return the sum with other places of the features."""
        count_pieces(len(self.parts))
        parts = {
            tuple((atom._replace(feature=places[atom.feature]), power) for atom, power in monomial): part
            for monomial, part in self.parts.items()
        }
        return replace(self, parts=parts)

    def plus(self, number: float) -> "Sum":
        """Return the sum plus a number, which moves the centre of a single part."""
        if len(self.parts) == 1 and not self.constant:
            ((monomial, part),) = self.parts.items()
            if part.coefficient:
                moved = part.centre - number / part.coefficient
                return _checked({monomial: Part(part.coefficient, moved)}, 0.0, self.cancelled, self.centred)
        return _checked(self.parts, self.constant + number, self.cancelled, self.centred)

    def times(self, number: float) -> "Sum":
        parts = {monomial: Part(part.coefficient * number, part.centre) for monomial, part in self.parts.items()}
        return _checked(parts, self.constant * number, self.cancelled * abs(number), self.centred)

    def power(self, exponent: int) -> "Sum":
        """Return the sum to a power from 1 to MAX_POWER."""
        if not 1 <= exponent <= MAX_POWER:
            raise InvalidInput(f"The file has a power of {exponent:g}. Powers from 1 to {MAX_POWER} are supported.")
        return product([self] * exponent)


def total(numbers: Iterable[float]) -> float:
    """Return the sum of numbers, rounded once. It is not finite if one of them or the sum is not."""
    try:
        return fsum(numbers)
    except (OverflowError, ValueError):
        return float("nan")


def added(sums: Iterable[Sum]) -> Sum:
    """Return the total of sums. Parts of one product with different centres get the first of them."""
    parts: dict[Monomial, Part] = {}
    constants = []
    cancelled, centred = 0.0, Centred()
    for one in sums:
        count_pieces(len(one.parts))
        cancelled, centred = cancelled + one.cancelled, _largest([centred, one.centred])
        constants.append(one.constant)
        for monomial, part in one.parts.items():
            known = parts.get(monomial)
            if known is None:
                parts[monomial] = part
                continue
            constants.append(part.coefficient * (known.centre - part.centre))
            parts[monomial] = Part(known.coefficient + part.coefficient, known.centre)
    return _checked(parts, total(constants), cancelled, centred)


def product(factors: Iterable[Sum]) -> Sum:
    return reduce(_times, factors)


def _times(one: Sum, other: Sum) -> Sum:
    if not other.parts:
        return one.times(other.constant)
    if not one.parts:
        return other.times(one.constant)
    one, other = one.plain, other.plain
    if (len(one.parts) + 1) * (len(other.parts) + 1) > MAX_PARTS:
        raise _too_many()
    count_pieces(len(one.parts) * len(other.parts))
    parts = [
        Sum({merged: Part(a.coefficient * b.coefficient)})
        for left, a in one.parts.items()
        for right, b in other.parts.items()
        if (merged := _merged(left, right)) is not None
    ]
    sides = [Sum(one.parts).times(other.constant)] if other.constant else []
    sides += [Sum(other.parts).times(one.constant)] if one.constant else []
    expanded = added([*parts, *sides, Sum({}, one.constant * other.constant)])
    # Scaled columns are about 1.
    cancelled = (1 + one.cancelled) * (1 + other.cancelled) if one.cancelled or other.cancelled else 0.0
    centred = Centred(max(one.centred.number, other.centred.number), one.centred.degree + other.centred.degree)
    return replace(expanded, cancelled=cancelled, centred=centred)


def _largest(found: Sequence[Centred]) -> Centred:
    return Centred(*map(max, zip(*found, strict=True)))


def _merged(left: Monomial, right: Monomial) -> Monomial | None:
    """Return the product of two products, or None if it is 0 in each row, because a row has one level."""
    powers = Counter(dict(left))
    powers.update(dict(right))
    indicators: dict[int, Atom] = {}
    for atom in powers:
        if atom.is_indicator:
            powers[atom] = 1
            if indicators.setdefault(atom.feature, atom) != atom:
                return None
    if sum(powers.values()) > MAX_POWER:
        raise InvalidInput(f"The file has a product of more than {MAX_POWER} factors, which is not supported.")
    return tuple(sorted(powers.items(), key=lambda factor: (factor[0].feature, factor[0].kind, str(factor[0].label))))


def _checked(parts: dict[Monomial, Part], constant: float, cancelled: float, centred: Centred) -> Sum:
    if len(parts) > MAX_PARTS:
        raise _too_many()
    count_pieces(1 + len(parts))
    if not (
        isfinite(constant) and all(isfinite(part.coefficient) and isfinite(part.centre) for part in parts.values())
    ):
        raise InvalidInput("The file has a number that is not finite, or whose products exceed the range of 64 bits.")
    return Sum(parts, constant, cancelled, centred)


def _too_many() -> InvalidInput:
    return InvalidInput(f"The file has a sum of more than {MAX_PARTS:,} products, which is not supported.")
