"""Sentences for faults found by pydantic: what was received, what was expected, and what to do."""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

from pydantic import BaseModel

from app.data.json_faults import escaped, kind_of
from app.data.names import MAX_NAME_LENGTH, MAX_PRESENT, did_you_mean, instead, shown
from app.registry.names import MODEL_NAME_RULE
from app.web.schemas.solver_options import SOLVER_OPTIONS

# Names of a union's alternatives, as pydantic puts them into a location.
_ALTERNATIVES = (*SOLVER_OPTIONS, "word", "object", "number")
_REMEDIES = {
    "instances": 'Send a list of rows, such as {"instances": [[1, 2], [3, 4]]}.',
    "targets": 'Send the targets of each row, such as "targets": [[5], [6]].',
    "interval": "For 95 %, send 0.95.",
    "confidence": "For 95 %, send 0.95.",
    "version": "The number of a version is whole, such as 1. For the current version, leave it out.",
    "level": "For 95 %, send 0.95.",
}
_OTHER_NAMES_OF_ROWS = ("inputs", "input", "data", "rows", "records", "samples", "x", "features", "dataframe_records")
_BOUNDS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "greater than or equal to"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "less than or equal to"),
}
_TYPES = {
    "int_type": "a whole number (an integer)",
    "int_parsing": "a whole number (an integer)",
    "int_from_float": "a whole number (an integer)",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false (a boolean)",
    "bool_parsing": "true or false (a boolean)",
    "string_type": "a string",
    "list_type": "a list",
    "model_type": "an object",
    "dict_type": "an object",
}
_WRITTEN_WITHOUT_QUOTES = ("int_type", "float_type", "bool_type")
_ROWS = 'Send an object, such as {"instances": [[1, 2], [3, 4]]}.'
_ANY = "*"  # Step of a location: any name of a column.
MAX_DIGITS = 20  # Characters of a number in a message.

Fault: TypeAlias = Mapping[str, Any]  # An item of pydantic's ValidationError.errors().


def pointer_of(location: Iterable[object]) -> str:
    """Return the JSON pointer of a location."""
    # An unknown name may be any text. If it is longer than a name can be, the pointer is that of its object.
    short = itertools.takewhile(lambda step: len(step) <= MAX_NAME_LENGTH, _steps(location))
    return "".join(f"/{escaped(step)}" for step in short)


def _steps(location: Iterable[object]) -> list[str]:
    return [str(step) for step in location if step not in _ALTERNATIVES]


def sentence(fault: Fault, others: Sequence[Fault] = (), schema: type[BaseModel] | None = None) -> str:
    """Return what is wrong at one location. `others` are all faults, `schema` is that of the body."""
    fault_type = fault["type"]
    if fault_type == "missing":
        return _missing(fault, others)
    if fault_type == "extra_forbidden":
        return _unknown(fault, schema)
    if fault_type in _BOUNDS:
        return _out_of_bounds(fault)
    if fault_type in _TYPES:
        return _wrong_type(fault, schema)
    if fault_type in _OTHERS:
        return _OTHERS[fault_type](fault)
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{message}." if message[-1] not in ".!?" else message


def _whole_body(schema: type[BaseModel] | None) -> str:
    """Return what to send in place of a body that is not an object."""
    return _ROWS if schema is None or "instances" in schema.model_fields else "Send an object."


def _name(fault: Fault) -> str:
    return next(reversed(_steps(fault["loc"])), "")


def _out_of_bounds(fault: Fault) -> str:
    bound, words = _BOUNDS[fault["type"]]
    value = fault.get("input")
    is_short = type(value) in (int, float) and str(value)[:MAX_DIGITS] == str(value)
    found = value if is_short else "another number"
    remedy = _REMEDIES.get(_name(fault), "Send such a number.")
    return f"Expected a number {words} {fault['ctx'][bound]:g}, found {found}. {remedy}"


def _too_short(fault: Fault) -> str:
    least, length = fault["ctx"]["min_length"], fault["ctx"]["actual_length"]
    remedy = _REMEDIES.get(_name(fault), "Add one.")
    return f"Expected at least {least} item{'s' * (least != 1)}, found {length}. {remedy}"


def _pattern(fault: Fault) -> str:
    if _name(fault) == "model":
        return f"{MODEL_NAME_RULE} The name given breaks this rule. Choose another, such as my-model."
    return "Found a character that is not allowed. Remove it; /openapi.json has the pattern."


def _no_choice(fault: Fault) -> str:
    expected, value = str(fault["ctx"]["expected"]), fault.get("input")
    near = did_you_mean(value, re.findall("'(.*?)'", expected)) if isinstance(value, str) else ""
    return f"Expected {expected}, found another value.{near or ' Send one of these.'}"


def _solver_kind(fault: Fault) -> str:
    given = fault.get("input")
    kind = given.get("kind") if isinstance(given, dict) else None
    near = did_you_mean(kind, SOLVER_OPTIONS) if isinstance(kind, str) else ""
    return f"{fault['msg']}{near}"


def _missing(fault: Fault, others: Sequence[Fault]) -> str:
    name = _name(fault)
    unknown = (
        str(other["loc"][-1])
        for other in others
        if other["type"] == "extra_forbidden" and other["loc"][:-1] == fault["loc"][:-1]
    )
    present = list(itertools.islice(unknown, MAX_PRESENT))
    hint = instead(name, present)
    if not hint and name == "instances":
        hint = next((f" Rename {shown(other)}." for other in present if other.lower() in _OTHER_NAMES_OF_ROWS), "")
    return f"{shown(name)} is required, but missing.{hint} {_REMEDIES.get(name, 'Add it.')}"


def _unknown(fault: Fault, schema: type[BaseModel] | None) -> str:
    *steps, name = _steps(fault["loc"])
    if another_kind := _of_another_kind(name, fault["loc"]):
        return another_kind
    place = tuple(steps)
    message = f"There is no such option: {shown(name)}."
    options = {} if schema is None else options_of(schema)
    here = sorted(options.get(place) or options.get((*place[:-1], _ANY)) or ())
    if near := did_you_mean(name, here):
        return message + near
    for other, names in options.items():
        if name in names:
            return f"{message} Move it to {pointer_of(other) or 'the top of the body'}."
    return f"{message} Expected {', '.join(here)}. Remove it." if here else f"{message} Remove it."


def _of_another_kind(option: str, location: Sequence[Any]) -> str | None:
    """Return the sentence for an option of another solver than the one at the location, or None if it is none."""
    chosen = location[-2] if len(location) > 1 else None
    owner = next((kind for kind, options in SOLVER_OPTIONS.items() if option in options.model_fields), None)
    if chosen not in SOLVER_OPTIONS or owner is None:
        return None
    return (
        f"`{option}` is an option of the solver {owner}, and this solver is {chosen}. Choose {owner} "
        f'(in JSON `"kind": "{owner}"`, in a query `solver={owner}`), or leave `{option}` out.'
    )


@cache
def options_of(schema: type[BaseModel]) -> dict[tuple[str, ...], frozenset[str]]:
    """Return the names of all options of a body, by the location of the object that has them."""
    document = schema.model_json_schema()
    options: dict[tuple[str, ...], frozenset[str]] = {}

    def walk(node: Any, place: tuple[str, ...]) -> None:
        if not isinstance(node, dict):
            return
        if "$ref" in node:
            walk(document["$defs"][node["$ref"].rpartition("/")[2]], place)
        for alternative in (*node.get("anyOf", ()), *node.get("oneOf", ()), *node.get("allOf", ())):
            walk(alternative, place)
        if "properties" in node:
            options[place] = options.get(place, frozenset()) | frozenset(node["properties"])
            for name, inner in node["properties"].items():
                walk(inner, (*place, name))
        walk(node.get("additionalProperties"), (*place, _ANY))

    walk(document, ())
    return options


def _wrong_type(fault: Fault, schema: type[BaseModel] | None = None) -> str:
    fault_type, value, name = fault["type"], fault.get("input"), _name(fault)
    expected = _TYPES[fault_type]
    if fault_type == "finite_number":
        return f"Expected {expected}, found one that is not. {_REMEDIES.get(name, 'Send a finite one.')}"
    if fault_type.endswith("_parsing"):
        return f"Expected {expected}, found other text. {_REMEDIES.get(name, 'Send one.')}"
    received = "a number with a fraction" if fault_type == "int_from_float" else kind_of(value)
    if not _steps(fault["loc"]):
        remedy = _whole_body(schema)
    elif isinstance(value, str) and fault_type in _WRITTEN_WITHOUT_QUOTES:
        remedy = "Send it without quotes."
    elif name == "instances" and isinstance(value, dict):
        remedy = "Send a list of rows, not of columns (in pandas: to_dict('records'))."
    else:
        remedy = _REMEDIES.get(name, f"Send {expected}.")
    return f"Expected {expected}, found {received}. {remedy}"


_OTHERS: dict[str, Callable[[Fault], str]] = {
    "string_pattern_mismatch": _pattern,
    "too_short": _too_short,
    "literal_error": _no_choice,
    "solver_kind": _solver_kind,
}
