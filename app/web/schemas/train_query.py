"""The options of POST /train for files, as query parameters and as fields of a form."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.datastructures import QueryParams

from app.errors import InvalidInput
from app.web.multipart import NO_FORM, Form
from app.web.problems import invalid_query
from app.web.query import part_of, query_parameter, query_properties, split_names, text_options
from app.web.schemas.reading import MAPPINGS, NAME_LISTS, TEXT_LISTS, constants, parse_columns, parse_mapping
from app.web.schemas.solver_options import SOLVER_FIELDS, SOLVER_OPTIONS
from app.web.schemas.train import FileOptions, ValidationOptions

_VALIDATION_FIELDS = tuple(ValidationOptions.model_fields)
_LISTS = ("targets", "features", "terms", *NAME_LISTS)
_REPEATED = frozenset({*_LISTS, *TEXT_LISTS, *MAPPINGS})
_KNOWN = frozenset(
    {
        *(option.alias or name for name, option in FileOptions.model_fields.items() if name != "validation"),
        *SOLVER_FIELDS,
        *_VALIDATION_FIELDS,
    }
)


def from_query(query: QueryParams, form: Form = NO_FORM) -> FileOptions:
    """Return the options in a query and in a form. Those of solver and validation are options of their own there.

    Lists are comma-separated; in a form, they may also be in several fields. Raises InvalidInput for an option that is
    unknown, repeated or invalid.
    """
    options: dict[str, Any] = {**text_options(query, form, _KNOWN, _REPEATED)}
    solver: dict[str, Any] = {name: options.pop(name) for name in SOLVER_FIELDS & options.keys()}
    _parse_reading(options)
    for name, value in form.options.items():
        (solver if name in SOLVER_FIELDS else options)[name] = value
    if isinstance(options.get("solver"), dict):
        solver = {**options.pop("solver"), **solver}
    if str(solver.get("start", "")).isdecimal():
        solver["start"] = {"version": solver["start"]}
    if validation := {name: options.pop(name) for name in _VALIDATION_FIELDS if name in options}:
        given = options.get("validation")
        options["validation"] = {**(given if isinstance(given, dict) else {}), **validation}
    if solver or "solver" in options:
        options["solver"] = {"kind": options.get("solver", "exact"), **solver}
    try:
        return FileOptions.model_validate(options, strict=False)  # all values are strings
    except ValidationError as error:
        raise invalid_query(error, _KNOWN, part_of(query, form)) from None


def check_early(query: QueryParams, form: Form) -> None:
    """Raise InvalidInput for faults in the options before the file that no option after the file can mend."""
    try:
        from_query(query, form)
    except InvalidInput as error:
        if form.is_complete or not any(_depends_on_others(detail.parameter) for detail in error.details):
            raise


def _depends_on_others(option: str | None) -> bool:
    """Return True if a fault of this option may be one of another option. None stands for several options."""
    return option is None or option in SOLVER_FIELDS


def _parse_reading(options: dict[str, Any]) -> None:
    """Parse the options that are lists or mappings. Raises InvalidInput."""
    for name in _REPEATED & options.keys():
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
