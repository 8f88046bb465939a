"""Columns that a formula of statsmodels makes of a table, as polynomials of the table's columns."""

import ast
from collections.abc import Mapping, Sequence
from itertools import product as combinations
from typing import Any

from linserve.convert._categories import indicators
from linserve.convert._design import ONE, Atom, Design, Feature, Polynomial, product
from linserve.errors import NotConvertible


def formula_columns(spec: Any, names: Sequence[str]) -> tuple[Design, list[Polynomial]]:
    """Return the columns with these names that `spec` makes, a DesignInfo of patsy or a ModelSpec of formulaic.

    Raises NotConvertible with the name of a column that is not a product of powers and indicators of levels.
    """
    terms = [[code for code in map(_code, term.factors) if code != "1"] for term in spec.terms]
    variables = {code: _variable(code) for term in terms for code in term}
    design = Design(dict.fromkeys(name for name, _ in variables.values()))
    places = {feature.name: index for index, feature in enumerate(design.features)}
    categories = _categories(spec)
    parts: dict[str, dict[str, Polynomial]] = {}
    for code, (name, power) in variables.items():
        index = places[name]
        if code in categories:
            parts[code] = _levels(code, design.features[index], index, categories[code], names)
        else:
            parts[code] = {code: {((Atom(index), power),): 1.0}}
    made = _products(terms, parts)
    for name in names:
        if name not in made:
            raise _refusal(name)
    return design, [made[name] for name in names]


def _products(terms: Sequence[Sequence[str]], parts: Mapping[str, Mapping[str, Polynomial]]) -> dict[str, Polynomial]:
    """Return the columns that terms can have, by their names, without names that two columns would have."""
    made: dict[str, Polynomial] = {"Intercept": {ONE: 1.0}}
    ambiguous = set()
    for term in terms:
        # A term also has the columns of some of its factors, if no other term has them.
        for chosen in combinations(*(("", *parts[code]) for code in term)):
            column: Polynomial = {ONE: 1.0}
            for code, part in zip(term, chosen, strict=True):
                column = product(column, parts[code][part]) if part else column
            name = ":".join(filter(None, chosen))
            if made.setdefault(name, column) != column:
                ambiguous.add(name)
    return {name: column for name, column in made.items() if name not in ambiguous}


def _code(factor: Any) -> str:
    return str(factor.expr if hasattr(factor, "expr") else factor.name())


def _categories(spec: Any) -> dict[str, list[Any]]:
    """Return the categories of each factor that has some."""
    if hasattr(spec, "factor_infos"):
        infos = {_code(factor): info.categories for factor, info in spec.factor_infos.items()}
    else:
        infos = {code: state.get("categories") for code, (_, state) in spec.encoder_state.items()}
    return {code: list(found) for code, found in infos.items() if found is not None}


def _variable(code: str) -> tuple[str, int]:
    """Return the column and the power of a factor, such as `x`, `Q('x')`, `C(x, Treatment(2))` or `I(x ** 2)`."""
    try:
        tree = ast.parse(code, mode="eval").body
    except SyntaxError:
        raise _refusal(code) from None
    power = 1
    match tree:
        case ast.Call(ast.Name("C"), [inner, *others], keywords):
            contrasts = [*others[:1], *(each.value for each in keywords if each.arg in ("contrast", "contrasts"))]
            if not all(map(_is_treatment, contrasts)):
                raise _refusal(code)
            tree = inner
        case ast.Call(ast.Name("I"), [ast.BinOp(inner, ast.Pow(), ast.Constant(int(power)))]) if power > 0:
            tree = inner
    match tree:
        case ast.Name(name) | ast.Call(ast.Name("Q"), [ast.Constant(str(name))]):
            return name, power
    raise _refusal(code)


def _is_treatment(contrast: ast.expr) -> bool:
    """Return True for treatment contrasts. The columns of others may have names like those of indicators."""
    return ast.unparse(contrast).partition("(")[0] in ("None", "Treatment", "contr.treatment", "contr.SAS")


def _levels(
    code: str, feature: Feature, index: int, categories: list[Any], names: Sequence[str]
) -> dict[str, Polynomial]:
    """Return the indicators of the levels by the names that they can have in the design."""
    texts = [str(category) for category in categories]
    left_out = (text for text in texts if not any(f"{code}[T.{text}]" in name for name in names))
    first = feature.levels[0] if feature.levels else next(left_out, None)
    columns = indicators(feature, index, categories, texts.index(first) if first in texts else None)
    without_reference = {f"{code}[T.{text}]": column for text, column in zip(texts, columns, strict=True)}
    with_all = {f"{code}[{text}]": column for text, column in zip(texts, columns, strict=True)}
    if both := without_reference.keys() & with_all.keys():
        raise _refusal(min(both))
    return without_reference | with_all


def _refusal(term: str) -> NotConvertible:
    return NotConvertible(
        f"The term {term} of the formula cannot be imported. Supported: columns, powers such as I(x ** 2), categories "
        "with treatment contrasts, and products of these."
    )
