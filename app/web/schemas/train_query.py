"""The options of POST /train for files, as query parameters."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.datastructures import QueryParams

from app.errors import InvalidInput
from app.web.problems import invalid_query
from app.web.query import check_form, check_query, query_parameter, query_properties, split_names
from app.web.schemas.reading import MAPPINGS, NAME_LISTS, TEXT_LISTS, constants, parse_columns, parse_mapping
from app.web.schemas.solver_options import SOLVER_FIELDS, SOLVER_OPTIONS
from app.web.schemas.train import FileOptions, ValidationOptions

_VALIDATION_FIELDS = tuple(ValidationOptions.model_fields)
_LISTS = ("targets", "features", "terms", *NAME_LISTS)


def from_query(query: QueryParams, form: Mapping[str, Any] = MappingProxyType({})) -> FileOptions:
    """Return the options in a query. Those of solver and validation are parameters too, and lists are comma-separated.

    `form` has further options, which are JSON values. Raises InvalidInput for one that is unknown, repeated or invalid.
    """
    fields = {field.alias or name for name, field in FileOptions.model_fields.items()}
    known = {*fields, *SOLVER_FIELDS, *_VALIDATION_FIELDS} - {"validation"}
    check_query(query, known)
    options: dict[str, Any] = {name: value for name, value in query.items() if name not in SOLVER_FIELDS}
    _parse_reading(options)
    solver: dict[str, Any] = {name: value for name, value in query.items() if name in SOLVER_FIELDS}
    check_form(query, form)
    for name, value in form.items():
        (solver if name in SOLVER_FIELDS else options)[name] = value
    if isinstance(options.get("solver"), dict):
        solver = {**options.pop("solver"), **solver}
    if str(solver.get("start", "")).isdecimal():
        solver["start"] = {"version": solver["start"]}
    if validation := {name: options.pop(name) for name in _VALIDATION_FIELDS if name in options}:
        options["validation"] = {**options.get("validation", {}), **validation}
    if solver or "solver" in options:
        options["solver"] = {"kind": options.get("solver", "exact"), **solver}
    try:
        return FileOptions.model_validate(options, strict=False)  # all values are strings
    except ValidationError as error:
        raise invalid_query(error, known) from None


def _parse_reading(options: dict[str, Any]) -> None:
    """Parse the options that are lists or mappings. Raises InvalidInput."""
    for name in {*_LISTS, *TEXT_LISTS, *MAPPINGS} & options.keys():
        options[name] = split_names(name, options[name])
    for name in MAPPINGS:
        if name in options:
            options[name] = _parsed(name, parse_mapping, options[name])
    if "fill" in options:
        options["fill"] = constants(options["fill"], options.get("categories", ()))
    if "columns" in options:
        options["columns"] = _parsed("columns", parse_columns, options["columns"])
    if options.get("sheet", "").isdecimal():
        options["sheet"] = int(options["sheet"])


def _parsed(name: str, parse: Callable[[Any], Any], value: Any) -> Any:
    """Return the parsed value of an option. Raises InvalidInput."""
    try:
        return parse(value)
    except ValueError as error:
        raise InvalidInput.of_parameter(name, str(error)) from None


def query_parameters() -> list[dict[str, Any]]:
    """Return the query parameters for the OpenAPI document."""
    properties: dict[str, dict[str, Any]] = {}
    models: list[type[BaseModel]] = [FileOptions, ValidationOptions, *SOLVER_OPTIONS.values()]
    for options in models:
        properties |= query_properties(options)
    properties["solver"] |= {"type": "string", "enum": [*SOLVER_OPTIONS]}
    properties["start"] |= {"type": "string", "pattern": "^(random|current|[1-9][0-9]*)$"}
    properties["device"]["description"] = "Device for the training; `auto` is for gradient descent."
    first = ["targets", "features"]  # the order in which Swagger UI shows them
    names = [*first, *(name for name in properties if name not in (*first, "kind", "validation"))]
    return [_parameter(name, properties[name]) for name in names]


def _parameter(name: str, rules: dict[str, Any]) -> dict[str, Any]:
    sentences = [rules.get("description", ""), "Only for files; in JSON it is in the body."]
    if name in _LISTS:
        sentences.insert(1, "In a query, names are separated by commas.")
    elif name in TEXT_LISTS:
        sentences.insert(1, "In a query, they are separated by commas.")
    elif name in MAPPINGS:
        sentences.insert(1, "In a query, as in NAME:VALUE,NAME:VALUE.")
    elif name == "columns":
        sentences.insert(1, "In a query, as a JSON object.")
    if owners := [solver for solver, options in SOLVER_OPTIONS.items() if name in options.model_fields]:
        sentences.insert(0, f"With `solver={'` or `'.join(owners)}`.")
    if "type" in rules:
        rules.pop("oneOf", None)
    return query_parameter(name, rules, " ".join(filter(None, sentences)))
