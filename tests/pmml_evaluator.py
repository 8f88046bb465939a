"""An evaluator of regression models, written from the text of PMML 4.4 and independent of the reader."""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from defusedxml import ElementTree  # type: ignore[import-untyped]
from numpy.typing import NDArray

from app.data.columns.dates import date_of
from app.registry.version_file import Version

NAMESPACE = "{http://www.dmg.org/PMML-4_4}"


class Invalid(Exception):
    """The result of a row with a value that the mining schema calls invalid."""


def predictions_of_pmml(content: bytes, version: Version, rows: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """Return the predictions (n, k) for rows that have every feature, some of them None."""
    return evaluate(content, [arguments_of(version, row) for row in rows])


def arguments_of(version: Version, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as a caller of the file prepares it: dates are days."""
    dates = {column.name: column for column in version.table.features if column.kind == "date"}
    return {
        name: date_of(value, dates[name]) if name in dates and value is not None else value
        for name, value in row.items()
    }


def evaluate(content: bytes, rows: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """Return the results of each model of the file, (n, k). NaN is a result that is missing or invalid."""
    root = ElementTree.fromstring(content)
    models = root.findall(f"{NAMESPACE}RegressionModel")
    return np.array([[_result(root, model, row) for model in models] for row in rows])


def _result(root: Any, model: Any, row: Mapping[str, Any]) -> float:
    data = {field.get("name"): field for field in root.find(f"{NAMESPACE}DataDictionary")}
    try:
        values: dict[str, Any] = {
            field.get("name"): _prepared(data[field.get("name")], field, row.get(field.get("name")))
            for field in model.find(f"{NAMESPACE}MiningSchema")
            if field.get("usageType", "active") == "active"
        }
    except Invalid:
        return math.nan
    for derived in root.iter(f"{NAMESPACE}DerivedField"):
        values[derived.get("name")] = _evaluated(derived[0], values)
    table = model.find(f"{NAMESPACE}RegressionTable")
    parts = [float(table.get("intercept"))]
    for entry in table:
        coefficient = float(entry.get("coefficient"))
        if entry.tag == f"{NAMESPACE}CategoricalPredictor":
            parts.append(coefficient * (_shown(values[entry.get("name")]) == entry.get("value")))
            continue
        names = [entry.get("name")] if entry.tag == f"{NAMESPACE}NumericPredictor" else [r.get("field") for r in entry]
        found = [values[name] for name in names]
        if None in found:
            return math.nan
        parts.append(coefficient * math.prod(found) ** int(entry.get("exponent", 1)))
    return math.fsum(parts)


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _prepared(field: Any, mining: Any, value: Any) -> Any:
    """Return a value after the treatment of missing and invalid values. None is missing."""
    marks = [each.get("value") for each in field if each.get("property") == "missing"]
    is_number = field.get("dataType") == "double"
    if value is not None and (float(value) in map(float, marks) if is_number else value in marks):
        value = None
    if value is None:
        if mining.get("missingValueTreatment") == "returnInvalid":
            raise Invalid
        value = mining.get("missingValueReplacement")
        if value is None:
            return None
    if is_number:
        return float(value)
    levels = [each.get("value") for each in field if each.get("property", "valid") == "valid"]
    if _shown(value) not in levels:
        assert mining.get("invalidValueTreatment") == "returnInvalid"
        raise Invalid
    return _shown(value)


def _evaluated(expression: Any, values: Mapping[str, Any]) -> Any:
    tag = expression.tag.removeprefix(NAMESPACE)
    if tag == "Constant":
        return float(expression.text)
    if tag == "Apply":
        return _applied(expression, values)
    value, fill = values[expression.get("field")], expression.get("mapMissingTo")
    if value is None:
        return None if fill is None else float(fill)
    return value if tag == "FieldRef" else float(value == expression.get("value"))


def _applied(expression: Any, values: Mapping[str, Any]) -> Any:
    function, arguments = expression.get("function"), [_evaluated(each, values) for each in expression]
    if function == "isMissing":
        return arguments[0] is None
    if function == "if":
        return arguments[1] if arguments[0] else arguments[2]
    if None in arguments:
        return None
    one, other = arguments
    return _FUNCTIONS[function](one, other)


_FUNCTIONS: Mapping[str, Callable[[float, float], float]] = {
    "-": operator.sub,
    "*": operator.mul,
    "pow": operator.pow,
}
