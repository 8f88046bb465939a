"""Fields and expressions of PMML as sums of features."""

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from app.data.columns.options import Kind
from app.data.groups import canonical
from app.data.names import shown
from app.errors import InvalidInput
from app.exchange.expression import Atom, Sum, added, product
from app.exchange.pmml.file import Element, children, number, number_of, tag_of, text_of

_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("double", "float", "integer"), "number"),
    **dict.fromkeys(("date", "dateTime", "dateDaysSince[1970]"), "date"),
    "boolean": "boolean",
    "string": "category",
}
_FUNCTIONS = ("+", "-", "*", "/", "pow", "if", "isMissing", "isNotMissing", "dateDaysSinceYear")
_EXPRESSIONS = ("FieldRef", "Constant", "NormContinuous", "NormDiscrete", "Apply")
_ADVICE = "Expected sums, products and powers of fields."


@dataclass
class Field:
    """A field of the data dictionary, and how the mining schema treats its values."""

    name: str
    kind: Kind
    type: str
    levels: dict[str, None] = field(default_factory=dict)
    na: dict[str, None] = field(default_factory=dict)
    replacement: str | None = None  # value in place of a missing one
    returns_invalid: bool = False  # True if a missing value has no result
    is_closed: bool = False  # True if a value that is not listed is invalid
    has_ranges: bool = False  # True if some numbers are invalid
    invalid: str = "returnInvalid"  # treatment of invalid values


@dataclass(frozen=True)
class Category:
    """A field that is a category, which only predictors of levels may use."""

    place: int


@dataclass(frozen=True)
class Missing:
    """A condition that a field is missing, or, if `negated`, that it has a value."""

    place: int
    negated: bool


Value: TypeAlias = "Sum | Category | Missing"


def data_field(element: Element) -> Field:
    """Return a field of the data dictionary. Raises InvalidInput if its type is not supported."""
    name, type_ = text_of(element, "name"), element.get("dataType", "double")
    if type_ not in _KINDS:
        raise InvalidInput(f"The field {shown(name)} has the type {shown(type_)}. Supported: {', '.join(_KINDS)}.")
    found = Field(name, _KINDS[type_], type_)
    if found.kind == "number" and element.get("optype") == "categorical":
        found.kind = "category"
    for value in children(element, "Value"):
        text = text_of(value, "value")
        if value.get("property", "valid") == "missing":
            found.na[text] = None
        elif value.get("property", "valid") == "valid" and found.kind == "category":
            found.levels[level_text(found, text)] = None
    found.is_closed = bool(found.levels)
    found.has_ranges = found.kind in ("number", "date") and any(
        each.get("property") != "missing" for each in children(element, "Value", "Interval")
    )
    return found


def level_text(one: Field, text: str) -> str:
    """Return a level as rows have it. A number is written as JSON writes it."""
    if one.type == "string":
        return text
    return canonical(number(text, f"A value of {shown(one.name)}")) or text


class Fields:
    """The fields by name. Derived fields are evaluated when they are used."""

    def __init__(self, fields: Iterable[Field], derived: Mapping[str, Element]) -> None:
        self.fields = list(fields)
        self._places = {each.name: place for place, each in enumerate(self.fields)}
        self._derived = derived
        self._known: dict[str, Value] = {}
        self._open: set[str] = set()

    def value(self, name: str) -> Value:
        """Return a field's value. Raises InvalidInput if there is no such field, or if it depends on itself."""
        if name in self._known:
            return self._known[name]
        if name in self._places:
            found = self._raw(self._places[name])
        elif name in self._open:
            raise InvalidInput(f"The derived field {shown(name)} depends on itself.")
        elif name in self._derived:
            self._open.add(name)
            expressions = [each for each in children(self._derived[name]) if tag_of(each) not in ("Value", "Interval")]
            if len(expressions) != 1 or len(self._open) > 100:  # noqa: PLR2004 - to bound the depth of the stack
                raise InvalidInput(
                    f"The derived field {shown(name)} does not have exactly one expression, or has too many fields."
                )
            found = self.evaluated(expressions[0])
            self._open.discard(name)
        else:
            raise InvalidInput(f"The model uses the field {shown(name)}, which the file does not define.")
        self._known[name] = found
        return found

    def _raw(self, place: int) -> Value:
        one = self.fields[place]
        if one.kind == "category":
            return Category(place)
        if one.replacement is None:
            return Sum.of(Atom(place, "number"))
        if one.kind == "boolean":
            return Sum.of(Atom(place, "filled", float(one.replacement == "true")))
        return Sum.of(Atom(place, "filled", number(one.replacement, f"The replacement for {shown(one.name)}")))

    def sum(self, name: str) -> Sum:
        """Return a field that is a number. Raises InvalidInput for others."""
        return _sum(self.value(name), name)

    def level(self, name: str, value: str) -> Sum:
        """Return 1 if a field has a value, otherwise 0."""
        found = self.value(name)
        if isinstance(found, Category):
            one = self.fields[found.place]
            text = level_text(one, value)
            if text in one.na or not text:
                return Sum.of(Atom(found.place, "missing"))
            one.levels[text] = None
            return Sum.of(Atom(found.place, "level", text))
        atom = found.atom if isinstance(found, Sum) else None
        if atom is not None and self.fields[atom.feature].kind == "boolean" and value in ("true", "false"):
            return _sum(found, name) if value == "true" else _sum(found, name).times(-1).plus(1)
        raise InvalidInput(f"The model has a coefficient for a value of {shown(name)}, which is not a category.")

    def evaluated(self, element: Element) -> Value:
        """Return the value of an expression. Raises InvalidInput if it is not supported."""
        tag = tag_of(element)
        if tag == "Constant":
            return Sum({}, number(element.text or "", "A constant"))
        if tag == "FieldRef":
            return self._reference(element)
        if tag == "NormDiscrete":
            return self._indicator(element)
        if tag == "NormContinuous":
            return self._norm(element)
        if tag == "Apply":
            return self._applied(element)
        raise InvalidInput(
            f"The file has an expression {shown(tag)[1:-1]}, which is not linear or not supported. Supported: "
            f"{', '.join(_EXPRESSIONS)}."
        )

    def _reference(self, element: Element) -> Value:
        name = text_of(element, "field")
        found, fill = self.value(name), element.get("mapMissingTo")
        return found if fill is None else self._filled(found, number(fill, "The attribute mapMissingTo"))

    def _filled(self, value: Value, fill: float) -> Sum:
        """Return a feature with a number in place of missing values."""
        atom = value.atom if isinstance(value, Sum) else None
        if atom is None or atom.is_indicator:
            raise InvalidInput("The file replaces missing values of something that is not a field of the data.")
        return Sum.of(atom if atom.kind == "filled" else Atom(atom.feature, "filled", fill))

    def _indicator(self, element: Element) -> Sum:
        name, fill = text_of(element, "field"), element.get("mapMissingTo")
        indicator = self.level(name, text_of(element, "value"))
        if fill is None:
            return indicator
        number_for_gaps = number(fill, "The attribute mapMissingTo")
        atom = indicator.atom
        if atom is None or atom.kind != "level":
            return self._filled(indicator, number_for_gaps)
        gaps = [Sum.of(Atom(atom.feature, "missing")).times(number_for_gaps)] if number_for_gaps else []
        return added([indicator, *gaps])

    def _norm(self, element: Element) -> Sum:
        points = [(number_of(each, "orig"), number_of(each, "norm")) for each in children(element, "LinearNorm")]
        if len(points) != 2 or element.get("outliers", "asIs") != "asIs" or element.get("mapMissingTo") is not None:  # noqa: PLR2004
            raise InvalidInput(
                "The file has a NormContinuous that is not one straight line. Expected two points, and outliers asIs."
            )
        (x0, y0), (x1, y1) = points
        if x0 == x1:
            raise InvalidInput("The file has a NormContinuous whose two points have the same value.")
        return self.sum(text_of(element, "field")).plus(-x0).times((y1 - y0) / (x1 - x0)).plus(y0)

    def _applied(self, element: Element) -> Value:
        function = text_of(element, "function")
        if function not in _FUNCTIONS:
            raise InvalidInput(
                f"The file applies the function {shown(function)}, which is not linear or not supported. Supported: "
                f"{', '.join(_FUNCTIONS)}."
            )
        if element.get("mapMissingTo") is not None or element.get("defaultValue") is not None:
            raise InvalidInput(f"The function {function} replaces missing results, which is not supported.")
        parts = list(children(element))
        arguments = [self.evaluated(part) for part in parts]
        wrong = InvalidInput(f"The function {function} has arguments that are not supported. {_ADVICE}")
        if function in ("isMissing", "isNotMissing"):
            return _missing(arguments, function == "isNotMissing", wrong)
        if function == "if":
            return self._chosen(arguments, wrong)
        if len(arguments) < 2:  # noqa: PLR2004 - all others have two
            raise wrong
        one, other = _sum(arguments[0], function), _sum(arguments[1], function)
        if function in ("+", "*"):
            every = [_sum(argument, function) for argument in arguments]
            return _joined(every) if function == "+" else product(every)
        if len(arguments) > 2:  # noqa: PLR2004 - these have two
            raise wrong
        if function == "-":
            return _joined([one, other.times(-1)])
        if other.parts:
            raise InvalidInput(f"The function {function} has a field where a constant is expected. {_ADVICE}")
        return self._with_constant(function, one, other.constant, wrong)

    def _with_constant(self, function: str, one: Sum, constant: float, wrong: InvalidInput) -> Sum:
        if function == "/":
            if not constant:
                raise wrong
            return one.times(1 / constant)
        if function == "pow":
            if constant != int(constant):
                raise InvalidInput("The file has a power that is not a whole number, so it is not a term.")
            return one.power(int(constant))
        atom = one.atom
        if atom is None or self.fields[atom.feature].type != "date" or not 1 <= constant <= dt.MAXYEAR:
            raise wrong
        offset = dt.date(int(constant), 1, 1).toordinal() - dt.date(1970, 1, 1).toordinal()
        return one.plus(-offset) if offset else one

    def _chosen(self, arguments: list[Value], wrong: InvalidInput) -> Sum:
        """Return if(isMissing(field), number, field), or numbers for missing and other values."""
        if len(arguments) != 3:  # noqa: PLR2004 - condition, then, else
            raise wrong
        condition, then, otherwise = arguments
        if not isinstance(condition, Missing):
            raise wrong
        if condition.negated:
            then, otherwise = otherwise, then
        if not isinstance(then, Sum) or then.parts or not isinstance(otherwise, Sum):
            raise wrong
        if otherwise.parts:
            atom = otherwise.atom
            if atom is None or atom.feature != condition.place:
                raise wrong
            return self._filled(otherwise, then.constant)
        gap = Sum.of(Atom(condition.place, "missing")).times(then.constant - otherwise.constant)
        return gap.plus(otherwise.constant) if otherwise.constant else gap


def _sum(value: Value, name: str) -> Sum:
    if not isinstance(value, Sum):
        raise InvalidInput(f"The file calculates with {shown(name)}, which is not a number. {_ADVICE}")
    return value


def _joined(sums: list[Sum]) -> Sum:
    """Return the total. A constant moves the centre of a single part, which keeps its digits."""
    constants = [one.constant for one in sums if not one.parts]
    others = [one for one in sums if one.parts]
    if len(others) == 1 and len(others[0].parts) == 1:
        return others[0].plus(float(np.sum(constants)))
    return added(sums)


def _missing(arguments: list[Value], negated: bool, wrong: InvalidInput) -> Missing:
    if len(arguments) != 1:
        raise wrong
    (value,) = arguments
    atom = value.atom if isinstance(value, Sum) else None
    if isinstance(value, Category):
        return Missing(value.place, negated)
    if atom is None or atom.kind != "number":
        raise wrong
    return Missing(atom.feature, negated)


def mining_field(one: Field, element: Element) -> None:
    """Add the treatment of missing and invalid values. Raises InvalidInput if it is not linear."""
    if element.get("outliers", "asIs") != "asIs":
        raise InvalidInput(
            f"The file treats outliers of {shown(one.name)} as {shown(element.get('outliers'))}, which is not linear. "
            "Supported: asIs."
        )
    one.replacement = element.get("missingValueReplacement")
    one.returns_invalid = element.get("missingValueTreatment") == "returnInvalid"
    one.invalid = element.get("invalidValueTreatment", "returnInvalid")
    one.is_closed &= one.invalid == "returnInvalid"
