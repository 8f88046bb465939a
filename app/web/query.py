"""What several routes take from their paths and bodies."""

import csv
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Annotated, Any, TypeAlias

from fastapi import Depends, Path, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.datastructures import QueryParams

from app.data.names import MAX_LISTED, MAX_NAME_LENGTH, did_you_mean, shown
from app.errors import FieldError, InvalidInput
from app.web.schemas.openapi_schema import DocumentedAs, Row

# The values are checked by app.data.json_rows, which names their places without building an error for each.
Rows: TypeAlias = Annotated[list[Any], DocumentedAs(Annotated[list[Row], Field(min_length=1)])]
ModelName: TypeAlias = Annotated[str, Path(description="Name of the model.", examples=["crop-yield"])]
VersionNumber: TypeAlias = Annotated[int, Path(description="Number of the version.", examples=[1])]
# The first that a training adds: an example of one that is not current.
OtherVersionNumber: TypeAlias = Annotated[int, Path(description="Number of the version.", examples=[2])]
JobId: TypeAlias = Annotated[
    str, Path(description="Id of the job, or `latest` for the newest one.", examples=["latest"])
]


def in_query(options: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """The schemas of options as they stand in a query, by name: nothing is null there, and lists are text."""
    found = {}
    for name, schema in options.model_json_schema()["properties"].items():
        chosen = next(one for one in schema.get("anyOf", [schema]) if one.get("type") != "null")
        rules = {rule: value for rule, value in chosen.items() if rule not in ("title", "description", "default")}
        found[name] = {"type": "string"} if rules.get("type") == "array" else rules
    return found


def only_known() -> Any:
    """A dependency of a route or a router: the query has no parameters but the route's own, and none of them twice."""

    async def check(request: Request) -> None:
        if request.query_params:
            route: APIRoute = request.scope["route"]
            check_query(request.query_params, set(_names_in(route.dependant)))

    return Depends(check)


def _names_in(dependant: Dependant) -> Iterator[str]:
    yield from (parameter.alias for parameter in dependant.query_params)
    for dependency in dependant.dependencies:
        yield from _names_in(dependency)


def check_query(query: QueryParams, known: Collection[str]) -> None:
    """Raises InvalidInput for an option that is none of those, or stands twice."""
    details: list[FieldError] = []
    for name, count in Counter(name for name, _ in query.multi_items()).items():
        if len(details) == MAX_LISTED:
            break
        if name not in known:
            place = name if len(name) <= MAX_NAME_LENGTH else None
            message = f"There is no such option: {shown(name)}.{did_you_mean(name, sorted(known))}"
            details.append(FieldError(message, parameter=place))
        elif count > 1:
            details.append(FieldError(f"Option given more than once: {shown(name)}. Give it once.", parameter=name))
    if details:
        listed = f"Known are: {', '.join(sorted(known))}." if known else "None are known here."
        message = f"The query has unknown or repeated options. {details[0].message} {listed}"
        raise InvalidInput(message, details)


def names_in_query(option: str, text: str) -> list[str]:
    """Names separated by commas; one with a comma in it stands in quotes. Raises InvalidInput."""
    try:
        return next(csv.reader([text]), [])
    except csv.Error:
        message = "Expected names of columns, separated by commas."
        raise InvalidInput(message, [FieldError(message, parameter=option)]) from None
