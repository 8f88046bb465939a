"""The columns that transformers make, as polynomials of a row's features.

Scaling, encoding and multiplying columns turns polynomials into polynomials. So a pipeline that ends in a linear model
is one polynomial of the features. Its terms and coefficients are what Linserve serves.
"""

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from linserve.errors import NotConvertible

Array: TypeAlias = NDArray[np.float64]
MISSING = "missing"  # the level of gaps, as in the column `region[missing]`


@dataclass(frozen=True, order=True)
class Atom:
    """A number that a feature gives: its value, or 1 if it has a level and otherwise 0."""

    feature: int
    level: str = ""
    is_level: bool = False


Monomial: TypeAlias = tuple[tuple[Atom, int], ...]  # atoms with powers, sorted
Polynomial: TypeAlias = dict[Monomial, float]
ONE: Monomial = ()
# Rounding errors of the sum of products, relative to the size of the predictions, above which the user is warned or
# the model is refused.
_NOTED_LOSS, _REFUSED_LOSS = 1e-8, 1e-4


def value_of(atom: Atom) -> Polynomial:
    return {((atom, 1),): 1.0}


def affine(column: Polynomial, factor: float, constant: float) -> Polynomial:
    """Return factor * column + constant."""
    scaled = {monomial: factor * coefficient for monomial, coefficient in column.items()}
    scaled[ONE] = scaled.get(ONE, 0.0) + constant
    return scaled


def product(left: Polynomial, right: Polynomial) -> Polynomial:
    made: Polynomial = {}
    for first, a in left.items():
        for second, b in right.items():
            monomial = _times(first, second)
            if monomial is not None:
                made[monomial] = made.get(monomial, 0.0) + a * b
    return made


def _times(left: Monomial, right: Monomial) -> Monomial | None:
    """Return the product, or None if it is 0 because a row has one level."""
    powers = dict(left)
    for atom, power in right:
        powers[atom] = 1 if atom.is_level else powers.get(atom, 0) + power
    levels = [atom.feature for atom in powers if atom.is_level]
    return None if len(levels) > len(set(levels)) else tuple(sorted(powers.items()))


@dataclass
class Feature:
    """A feature, with its properties that are known from the transformers so far."""

    name: str
    kind: str = ""  # empty until a transformer or the model uses it
    levels: list[str] = field(default_factory=list)  # the reference level first
    fill: float | str | None = None
    has_missing_level: bool = False
    typical: float = 0.0  # an absolute value in the middle of the training rows; 0 if no transformer knows one

    def use_as(self, kind: str) -> None:
        """Set the kind. Raises NotConvertible if it has another one."""
        if self.kind not in ("", kind):
            raise NotConvertible(
                f"The feature {self.name!r} is used as a {self.kind} and as a {kind}. Use two columns."
            )
        self.kind = kind

    def fill_with(self, value: float | str) -> None:
        """Set the constant in place of gaps. Raises NotConvertible if there is another one."""
        if self.fill is not None and self.fill != value:
            raise NotConvertible(f"The gaps of the feature {self.name!r} are filled with two values. Use two columns.")
        self.fill = value

    def record(self) -> str | dict[str, Any]:
        """Return the feature as the JSON of a model has it."""
        column: dict[str, Any] = {"name": self.name}
        if self.kind in ("category", "boolean"):
            column["kind"] = self.kind
        if self.kind == "category":
            column["levels"] = self.levels
        if self.has_missing_level:
            column["missing"] = "indicator"
        elif (fill := self._known_fill) is not None:
            column |= {"missing": "fill", "fill": fill}
        return self.name if len(column) == 1 else column

    @property
    def _known_fill(self) -> float | str | None:
        """The constant; None if it is not a level, because rows with an unknown level have no prediction either."""
        if self.kind != "category" or self.fill is None:
            return self.fill
        level = self.fill if isinstance(self.fill, str) else f"{self.fill:.17g}"
        return level if level in self.levels else None

    def columns(self, index: int) -> list[Atom]:
        """Return the columns that Linserve makes of the feature at this index."""
        if self.kind != "category":
            return [Atom(index)]
        gaps = [MISSING] if self.has_missing_level else []
        return [Atom(index, level, is_level=True) for level in [*self.levels[1:], *gaps]]


class Design:
    """The features, and the columns that are made from them."""

    def __init__(self, names: Iterable[str]) -> None:
        self.features = [Feature(name) for name in names]

    def raw(self) -> list[Polynomial]:
        """Return the features as columns."""
        return [value_of(Atom(index)) for index in range(len(self.features))]

    def model(self, columns: Sequence[Polynomial], coefficients: Array, intercept: Array) -> dict[str, Any]:
        """Return the fields of a model with coefficients (k, p) over p columns."""
        columns = [self._without_references(column) for column in columns]
        self._use_numbers(columns)
        self._check_digits(columns, coefficients)
        used = [index for index, feature in enumerate(self.features) if feature.kind]
        plain = [((atom, 1),) for index in used for atom in self.features[index].columns(index)]
        present = {monomial for column in columns for monomial in column}
        others = sorted(present - {ONE, *plain})
        if others:
            plain = [monomial for monomial in plain if monomial in present]
        monomials = [*plain, *others]
        weights = np.array([[column.get(monomial, 0.0) for monomial in (*monomials, ONE)] for column in columns])
        combined = coefficients @ weights.reshape(len(columns), len(monomials) + 1)
        fields: dict[str, Any] = {
            "features": [self.features[index].record() for index in used],
            "coefficients": combined[:, :-1].tolist(),
            "intercept": (combined[:, -1] + intercept).tolist(),
        }
        if others:
            fields["terms"] = [self._term(monomial) for monomial in monomials]
        return fields

    def note_scales(self, columns: Iterable[Polynomial]) -> None:
        """Note typical values of features, from columns that are scaled to about 1."""
        for column in columns:
            others = [monomial for monomial in column if monomial != ONE]
            if len(others) != 1 or len(others[0]) != 1 or not column[others[0]]:
                continue
            ((atom, power),) = others[0]
            if power == 1 and not atom.is_level:
                feature = self.features[atom.feature]
                feature.typical = max(feature.typical, (abs(column.get(ONE, 0.0)) + 1.0) / abs(column[others[0]]))

    def _check_digits(self, columns: Sequence[Polynomial], coefficients: Array) -> None:
        """Raise NotConvertible, or warn, if the sum of products that replaces scaled columns cancels too many digits.

        For example, ((x - 1e9) / 1)^3 has the products x^3, 1e9 x^2 and so on, which are about 1e27.
        """
        sizes = np.array(
            [sum(abs(c) * self._typical(monomial) for monomial, c in column.items()) for column in columns]
        )
        weights = np.abs(coefficients)
        with np.errstate(all="ignore"):
            losses = np.finfo(float).eps * np.nan_to_num((weights @ sizes) / weights.sum(axis=1))
        loss = float(losses.max(initial=0.0))
        if loss < _NOTED_LOSS:
            return
        worst = columns[int(np.argmax(weights[int(losses.argmax())] * sizes))]
        factors = max(worst, key=lambda monomial: abs(worst[monomial]) * self._typical(monomial))
        names = " and ".join(repr(self.features[atom.feature].name) for atom, _ in factors)
        reason = f"the values of {names} are far from 0 compared with their spread, and a scaler subtracts their mean"
        if loss > _REFUSED_LOSS:
            raise NotConvertible(
                f"The pipeline cannot be imported, because {reason}. The sum of products that Linserve computes "
                "instead would lose its digits. Subtract a constant before you fit and before you predict."
            )
        warnings.warn(
            f"Predictions of the imported version may differ from those of the pipeline by about {loss:.0e} of their "
            f"range, because {reason}.",
            stacklevel=2,
        )

    def _typical(self, monomial: Monomial) -> float:
        """Return a typical absolute value of a product; 0 if no transformer knows one."""
        return math.prod(
            1.0 if atom.is_level else self.features[atom.feature].typical ** power for atom, power in monomial
        )

    def _without_references(self, column: Polynomial) -> Polynomial:
        """Return the column without the reference levels: each is 1 minus the others."""
        made: Polynomial = {}
        for monomial, coefficient in column.items():
            factors: Polynomial = {ONE: coefficient}
            for atom, power in monomial:
                feature = self.features[atom.feature]
                if atom.is_level and atom.level == feature.levels[0]:
                    others: Polynomial = {((other, 1),): -1.0 for other in feature.columns(atom.feature)}
                    factors = product(factors, {ONE: 1.0, **others})
                else:
                    factors = product(factors, {((atom, power),): 1.0})
            for term, value in factors.items():
                made[term] = made.get(term, 0.0) + value
        return made

    def _use_numbers(self, columns: Sequence[Polynomial]) -> None:
        """Note which features are numbers. Raises NotConvertible if one is a category too."""
        for atom in {atom for column in columns for monomial in column for atom, _ in monomial}:
            feature = self.features[atom.feature]
            if not atom.is_level and feature.kind != "boolean":
                feature.use_as("number")

    def _term(self, monomial: Monomial) -> str:
        names = []
        for atom, power in monomial:
            name = self.features[atom.feature].name
            names.append((f"{name}[{atom.level}]" if atom.is_level else name, power))
        if names[1:] or names[0][1] > 1:
            for name, _ in names:
                if ":" in name or "^" in name:
                    raise NotConvertible(f"{name!r} cannot be in a product or a power, because its name has : or ^.")
        return ":".join(name if power == 1 else f"{name}^{power}" for name, power in names)
