"""Assembles a model from the sums that a reader found in a file.

A file may have a coefficient for each level of a category. A version has none for the reference level. So the reader
adds the coefficient of the first level to the intercept, and subtracts it from those of the other levels.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from app.data.columns.limits import check_design
from app.data.columns.options import Kind
from app.data.columns.schema import MISSING_LEVEL, Column, TableSchema
from app.data.columns.text_profile import MAX_LEVEL_LENGTH, MAX_LEVELS
from app.data.names import MAX_NAMES, check_names, shown
from app.errors import FieldError, InvalidInput
from app.exchange.expression import Atom, Centred, Monomial, Sum, total
from app.exchange.hints import with_hint
from app.exchange.json_model import ColumnRecord
from app.exchange.portable import PortableModel
from app.regression.errors import InvalidTerms
from app.regression.sufficient_statistics import Array
from app.regression.terms import parse_terms

_MAX_FOLDED = 2 * MAX_NAMES  # Most products of a model while the reference levels are replaced.
# Rounding errors relative to the size of predictions, above which there is a warning, or the model is refused.
_NOTED_LOSS, _REFUSED_LOSS = 1e-8, 1e-4
_MAX_WEIGHTS = 4_000_000  # Most coefficients that are added up, over all products and targets.


@dataclass(frozen=True)
class Feature:
    """A feature as a file describes it."""

    name: str
    kind: Kind = "number"
    levels: tuple[str, ...] = ()
    na: tuple[str, ...] = ()  # values that mark a gap
    fill: str | None = None  # level in place of a gap
    hint: ColumnRecord | None = None


class _Weights:
    """start + sum of weight (product - centre), with a weight (k,) for each product."""

    def __init__(self, columns: Sequence[Sum], coefficients: Array, constant: Array) -> None:
        self.of: dict[Monomial, Array] = {}
        self.centre: dict[Monomial, float] = {}
        self._starts = [constant]
        self._left = _MAX_WEIGHTS
        with np.errstate(over="ignore", invalid="ignore"):  # The result is checked.
            for column, weights in zip(columns, coefficients, strict=True):
                self._starts.append(column.constant * weights)
                for monomial, part in column.parts.items():
                    self.add(monomial, part.coefficient * weights, part.centre)

    def add(self, monomial: Monomial, weight: Array, centre: float = 0.0) -> None:
        self._left -= len(weight)
        if self._left < 0:
            raise InvalidInput(
                f"The file's model has more than {_MAX_WEIGHTS:,} coefficients, counted over all products and targets."
            )
        if not monomial:
            self._starts.append(weight * (1 - centre))
        elif monomial not in self.of:
            self.of[monomial], self.centre[monomial] = weight, centre
        else:
            self._starts.append(weight * (self.centre[monomial] - centre))
            self.of[monomial] = self.of[monomial] + weight

    def fold(self, reference: Atom, others: Sequence[Atom]) -> None:
        """Replace the indicator of the reference level by 1 minus the others."""
        for monomial in [monomial for monomial in self.of if any(atom == reference for atom, _ in monomial)]:
            weight = self.of.pop(monomial)
            self._starts.append(-weight * self.centre.pop(monomial))
            place = next(index for index, (atom, _) in enumerate(monomial) if atom == reference)
            self.add((*monomial[:place], *monomial[place + 1 :]), weight)
            for other in others:
                self.add((*monomial[:place], (other, 1), *monomial[place + 1 :]), -weight)
            if len(self.of) > _MAX_FOLDED:
                raise InvalidInput(f"The file's model has more than {MAX_NAMES:,} columns, which is not supported.")

    @property
    def start(self) -> Array:
        return np.array([total(column) for column in np.stack(self._starts).T.tolist()])


def assembled(
    features: Sequence[Feature], targets: Sequence[str], columns: Sequence[Sum], coefficients: Array, constant: Array
) -> PortableModel:
    """Return the model constant + coefficients' columns, with coefficients (w, k) and constant (k,).

    Raises InvalidInput if the names, the levels or the numbers cannot be those of a version.
    """
    check_names([feature.name for feature in features], targets)
    weights = _Weights(columns, np.asarray(coefficients, np.float64), np.asarray(constant, np.float64))
    used = _atoms_by_feature(weights.of)
    table: list[Column] = []
    for place, feature in enumerate(features):
        atoms = used[place]
        column = _category(place, feature, atoms) if feature.kind == "category" else _number(feature, atoms)
        if column.kind == "category":
            weights.fold(Atom(place, "level", column.levels[0]), _others(place, column))
        table.append(with_hint(column, feature.hint))
    check_design(table)
    schema = TableSchema(tuple(table), tuple(map(Column, targets)))
    return _model(schema, weights)


def warnings_of_digits(columns: Sequence[Sum], coefficients: Array) -> Iterator[str]:
    """Yield a warning if multiplying out scaled columns costs digits of the predictions.

    For example, (x - 1e9)^3 has the products x^3, 1e9 x^2 and so on, which are about 1e27. Raises InvalidInput if too
    few digits are left.
    """
    sizes = np.array([column.cancelled for column in columns])
    weights = np.abs(np.asarray(coefficients, np.float64).reshape(len(columns), -1))  # (w, k)
    with np.errstate(all="ignore"):
        losses = np.finfo(np.float64).eps * np.nan_to_num((weights * sizes[:, None]).sum(axis=0) / weights.sum(axis=0))
    loss = float(losses.max(initial=0.0))
    reason = "the file multiplies columns that are far from 0 compared with their spread, after it has scaled them"
    if loss > _REFUSED_LOSS:
        raise InvalidInput(
            f"The model cannot be imported, because {reason}. The sum of products that the version would compute "
            "instead loses its digits. Subtract a constant from the columns before you fit."
        )
    if loss > _NOTED_LOSS:
        yield (f"Predictions may differ from those of the file by about {loss:.0e} of their range, because {reason}.")
    weighted = (column.centred for column, row in zip(columns, weights, strict=True) if row.any())
    if centred := [one for one in weighted if one.degree > 1]:
        most = max(one.number for one in centred)
        enough = max(_sufficient_spread(one) for one in centred)
        yield (
            f"The file subtracts numbers of up to {most:.0e} from columns, does not scale them, and multiplies them. "
            f"If the values of such a column vary by less than about {enough:.0e}, predictions lose digits: compare "
            "some with those of the file."
        )


def _sufficient_spread(centred: Centred) -> float:
    """Return the spread above which (spread + 2 number)^degree loses less than _NOTED_LOSS of spread^degree."""
    ratio = (_NOTED_LOSS / np.finfo(np.float64).eps) ** (1 / centred.degree)
    return float(2 * centred.number / (ratio - 1))


def _atoms_by_feature(monomials: dict[Monomial, Array]) -> dict[int, set[Atom]]:
    used: dict[int, set[Atom]] = defaultdict(set)
    for atom, _ in chain.from_iterable(monomials):
        used[atom.feature].add(atom)
    return used


def _others(place: int, column: Column) -> list[Atom]:
    """Return the atoms of the columns of a category."""
    gap = [Atom(place, "missing")] if column.missing == "indicator" else []
    return [*(Atom(place, "level", level) for level in column.levels[1:]), *gap]


def _number(feature: Feature, atoms: set[Atom]) -> Column:
    """Return a number, a boolean or a date, whose gaps are treated as the atoms treat them."""
    column = Column(feature.name, feature.kind, na=feature.na)
    fills = {atom.label for atom in atoms if atom.kind == "filled"}
    kinds = {atom.kind for atom in atoms}
    if len(fills) > 1 or {"number", "filled"} <= kinds or {"number", "missing"} <= kinds:
        raise InvalidInput(
            f"The file treats missing values of {shown(feature.name)} in several ways. One way for a feature is "
            "supported: one number in its place, with or without an indicator."
        )
    fill = next(iter(fills), 0.0)
    if "missing" in kinds:
        return replace(column, missing="indicator", fill=fill)
    return replace(column, missing="fill", fill=fill) if fills else column


def _category(place: int, feature: Feature, atoms: set[Atom]) -> Column:
    """Return a category. If a level has no atom, it comes first, as the reference level."""
    levels = list(dict.fromkeys(feature.levels))
    levels += sorted({str(atom.label) for atom in atoms if atom.kind == "level"}.difference(levels))
    if not levels:
        raise InvalidInput(f"The file has no levels of {shown(feature.name)}, which is a category.")
    if len(levels) > MAX_LEVELS:
        raise InvalidInput(f"{shown(feature.name)} has more than {MAX_LEVELS:,} levels, which is not supported.")
    if any(len(level) > MAX_LEVEL_LENGTH or not level for level in levels):
        raise InvalidInput(
            f"Levels of {shown(feature.name)} are not usable. Expected texts of 1 to {MAX_LEVEL_LENGTH} characters."
        )
    without = [level for level in levels if Atom(place, "level", level) not in atoms]
    if without:
        levels.remove(without[0])
        levels.insert(0, without[0])
    column = Column(feature.name, "category", tuple(levels), na=feature.na)
    if Atom(place, "missing") in atoms:
        if MISSING_LEVEL in levels:
            raise InvalidInput(
                f'{shown(feature.name)} has a level "{MISSING_LEVEL}", which is also the name of the level of gaps.'
            )
        return replace(column, missing="indicator")
    if feature.fill is not None:
        if feature.fill not in levels:
            raise InvalidInput(f"Missing values of {shown(feature.name)} become a level that the model does not have.")
        return replace(column, missing="fill", fill=feature.fill)
    return column


def _model(table: TableSchema, weights: _Weights) -> PortableModel:
    monomials = list(weights.of)
    names = {monomial: tuple((_encoded_name(atom, table), power) for atom, power in monomial) for monomial in monomials}
    terms = () if all(_is_single(monomial) for monomial in monomials) else tuple(_terms(monomials, names, table))
    places: dict[tuple[tuple[str, int], ...], int] = {
        ((name, 1),): index for index, name in enumerate(table.encoded_features)
    }
    model = PortableModel(table, np.empty(0), weights.start, terms)
    if terms:
        places = _parsed(model.columns, table)
    coef = np.zeros((len(table.targets), len(model.columns)))
    centre = np.zeros(len(model.columns))
    for monomial in monomials:
        place = places.get(tuple(sorted(names[monomial])))
        if place is None:
            raise InvalidInput(
                'A name of a feature or a level that is part of a product has ":" or "^". Rename it: these signs join '
                "the features of a term."
            )
        coef[:, place], centre[place] = weights.of[monomial], weights.centre[monomial]
    for numbers in (coef, centre, model.intercept):
        _finite(numbers)
    if not centre.any():
        return replace(model, coef=coef)
    start = model.intercept
    with np.errstate(over="ignore"):
        moved = [total((first, *(-row * centre).tolist())) for first, row in zip(start.tolist(), coef, strict=True)]
    return replace(model, coef=coef, intercept=_finite(np.array(moved)), centre=centre, start=start)


def _finite(numbers: Array) -> Array:
    """Return numbers. Raises InvalidInput if one of them is not finite."""
    if not np.isfinite(numbers).all():
        raise InvalidInput("A coefficient of the file is not finite, or exceeds the range of 64-bit numbers.")
    return numbers


def _is_single(monomial: Monomial) -> bool:
    return len(monomial) == 1 and monomial[0][1] == 1


def _encoded_name(atom: Atom, table: TableSchema) -> str:
    name = table.features[atom.feature].name
    if atom.kind == "level":
        return f"{name}[{atom.label}]"
    return f"{name}[{MISSING_LEVEL}]" if atom.kind == "missing" else name


def _terms(
    monomials: Sequence[Monomial], names: dict[Monomial, tuple[tuple[str, int], ...]], table: TableSchema
) -> Iterator[str]:
    """Yield each term once. A single feature is a term with all of its columns."""
    own: set[int] = set()
    for monomial in monomials:
        if _is_single(monomial):
            feature = monomial[0][0].feature
            if feature not in own:
                own.add(feature)
                yield table.features[feature].name
        else:
            yield ":".join(name if power == 1 else f"{name}^{power}" for name, power in names[monomial])


def _parsed(columns: Sequence[str], table: TableSchema) -> dict[tuple[tuple[str, int], ...], int]:
    """Return the places of columns that are terms, by their factors."""
    features = table.encoded_features
    try:
        parsed = parse_terms(columns, features)
    except InvalidTerms as error:
        # The message of the error is logged, and may not hold levels.
        details = [FieldError(error.faults[0].message)]
        raise InvalidInput("The products of the file are not usable as terms.", details) from None
    return {
        tuple(sorted((features[index], power) for index, power in factors)): place
        for place, factors in enumerate(parsed)
    }
