"""Parameters that several routes take from their paths, and queries: read, checked and documented.

FastAPI's own query models take tens of microseconds for each request, even without a query, and ignore all but the last
value of a parameter that is given more than once.
"""

import csv
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Annotated, Any, TypeAlias, TypeVar, get_origin

from fastapi import Depends, Path, Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query
from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from starlette.datastructures import QueryParams

from app.data.names import MAX_LISTED, MAX_NAME_LENGTH, did_you_mean, shown
from app.errors import FieldError, InvalidInput
from app.web.multipart import NO_FORM, Form
from app.web.problems import invalid_query
from app.web.schemas.openapi_schema import DocumentedAs, Row

M = TypeVar("M", bound=BaseModel)

# The values are checked by app.data.json_rows, which names their places without building an error for each.
Rows: TypeAlias = Annotated[list[Any], DocumentedAs(Annotated[list[Row], Field(min_length=1)])]
ModelName: TypeAlias = Annotated[str, Path(description="Name of the model.", examples=["crop-yield"])]
VersionNumber: TypeAlias = Annotated[int, Path(description="Number of the version.", examples=[1])]
# The first version that a training adds: an example of a version that is not current.
OtherVersionNumber: TypeAlias = Annotated[int, Path(description="Number of the version.", examples=[2])]
JobId: TypeAlias = Annotated[
    str, Path(description="Id of the job, or `latest` for the newest one.", examples=["latest"])
]

# Keywords of a property's schema that do not restrict its value in a query.
_NOT_RULES = {"title", "description", "default", "anyOf", "$ref", "examples"}
_NO_NAMES = "Expected names of columns, separated by commas."


def _parse_names(text: str) -> list[str]:
    """Return names separated by commas. A name that contains a comma is in quotes. Raises ValueError."""
    try:
        return next(csv.reader([text]), [])
    except csv.Error:
        raise ValueError(_NO_NAMES) from None


# Names of columns, in a query in one parameter.
NameList: TypeAlias = Annotated[
    list[str],
    BeforeValidator(lambda value: _parse_names(value) if isinstance(value, str) else value),
]


def read_query(request: Request, model: type[M], form: Form = NO_FORM) -> M:
    """Return the query, and the options of a form, as this model.

    Raises InvalidInput for an option that is unknown, repeated or invalid.
    """
    query = request.query_params
    if not query and not form.fields and not form.options:
        return model()
    known = model.model_fields
    lists = {name for name, option in known.items() if get_origin(option.annotation) is list} if form else frozenset()
    options = text_options(query, form, known, lists)
    try:
        return model.model_validate({**options, **form.options})
    except ValidationError as error:
        raise invalid_query(error, known, part_of(query, form)) from None


def query_parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    """Return the parameters of a query model for the OpenAPI document."""
    return [
        query_parameter(name, rules, rules.get("description", "")) for name, rules in query_properties(model).items()
    ]


def query_properties(model: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """Return the schemas of a model's fields in a query, by name: no value is null there, and a list is text."""
    properties = {}
    for name, schema in model.model_json_schema()["properties"].items():
        alternatives = [part for part in schema.get("anyOf", ()) if part.get("type") != "null"]
        rules = {**schema, **alternatives[0]} if len(alternatives) == 1 else dict(schema)
        if rules.get("type") in ("array", "object"):
            rules = {"type": "string", "description": schema["description"]}
        properties[name] = rules
    return properties


def query_parameter(name: str, rules: dict[str, Any], description: str) -> dict[str, Any]:
    """Return a query parameter for the OpenAPI document. `rules` are those of `query_properties`."""
    schema = {rule: value for rule, value in rules.items() if rule not in _NOT_RULES}
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def split_names(option: str, text: str) -> list[str]:
    """Return names separated by commas. Raises InvalidInput."""
    try:
        return _parse_names(text)
    except ValueError:
        raise InvalidInput.of_parameter(option, _NO_NAMES) from None


def reject_unknown_parameters() -> Any:
    """Return a dependency of a route or a router: its query has only the route's own parameters, each once."""

    async def check(request: Request) -> None:
        if request.query_params:
            route: APIRoute = request.scope["route"]
            parameters = get_flat_params(route.dependant)
            known = {parameter.alias for parameter in parameters if isinstance(parameter.field_info, Query)}
            check_query(request.query_params, known)

    return Depends(check)


def text_options(
    query: QueryParams, form: Form, known: Collection[str], lists: Collection[str] = frozenset()
) -> dict[str, str]:
    """Return the options in a query and in the fields of a form that are not empty.

    Those of `lists` may be in several fields.

    Raises InvalidInput for an option that is unknown, or given more than once.
    """
    check_query(query, known)
    if not form.fields and not form.options:
        return dict(query)
    once = [name for name, _ in form.given if name not in lists]
    _check_names("form", [*once, *({name for name, _ in form.fields} - {*once})], known)
    names = [name for name, _ in form.given]
    for given, others, places in (
        (names, query, "in the query and in the form"),
        (form.options, query, "in the query and in the part `options`"),
        (names, form.options, "in a field and in the part `options`"),
    ):
        if both := next((name for name in given if name in others), None):
            raise InvalidInput.of_parameter(both, f"Option given both {places}: {shown(both)}. Give it once.")
    options = dict(query)
    for name, text in form.given:
        options[name] = f"{options[name]},{text}" if name in options else text
    return options


def part_of(query: QueryParams, form: Form) -> str:
    """Return the part of a request that has its options, for messages."""
    return "options" if query and form else "form" if form else "query"


def check_query(query: QueryParams, known: Collection[str]) -> None:
    """Raise InvalidInput for a parameter that is not known, or is given more than once."""
    _check_names("query", [name for name, _ in query.multi_items()], known)


def _check_names(part: str, names: Sequence[str], known: Collection[str]) -> None:
    details: list[FieldError] = []
    for name, count in Counter(names).items():
        if len(details) == MAX_LISTED:
            break
        place = name if len(name) <= MAX_NAME_LENGTH else None
        if name not in known:
            message = f"There is no such option: {shown(name)}.{did_you_mean(name, sorted(known))}"
            details.append(FieldError(message, parameter=place))
        elif count > 1:
            details.append(FieldError(f"Option given more than once: {shown(name)}. Give it once.", parameter=name))
    if details:
        listed = f"Known are: {', '.join(sorted(known))}." if known else "None are known here."
        message = f"The {part} has unknown or repeated options. {details[0].message} {listed}"
        raise InvalidInput(message, details)


def single_header(request: Request, name: str) -> str | None:
    """Return the value of a header, or None if there is none. Raises InvalidInput if it is given more than once."""
    values = request.headers.getlist(name)
    if len(values) > 1:
        raise InvalidInput.of_parameter(name, f"The header {name} is given more than once. Send it once.")
    return values[0] if values else None
