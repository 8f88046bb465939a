"""Parameters that several routes take from their paths and queries, and the check of a query's names.

FastAPI checks the values. It would ignore all but the last value of a parameter that is given more than once.
"""

import csv
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Annotated, Any, TypeAlias

from fastapi import Depends, Path, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator, Field
from starlette.datastructures import QueryParams

from app.data.name_hints import MAX_LISTED, did_you_mean, shown
from app.data.names import MAX_NAME_LENGTH
from app.errors import FieldError, InvalidInput
from app.web.schemas.openapi_schema import DocumentedAs, Row

# The values are checked by app.data.json_rows, which names their places without building an error for each.
Rows: TypeAlias = Annotated[list[Any], DocumentedAs(Annotated[list[Row], Field(min_length=1)])]
ModelName: TypeAlias = Annotated[str, Path(description="Name of the model.", examples=["crop-yield"])]
VersionNumber: TypeAlias = Annotated[int, Path(description="Number of the version.", examples=[1])]
# The first version that a training adds: an example of a version that is not current.
OtherVersionNumber: TypeAlias = Annotated[int, Path(description="Number of the version.", examples=[2])]
JobId: TypeAlias = Annotated[
    str, Path(description="Id of the job, or `latest` for the newest one.", examples=["latest"])
]

_NO_NAMES = "Expected names of columns, separated by commas."


def _parse_names(text: str) -> list[str]:
    """Return names separated by commas. A name that contains a comma is in quotes. Raises ValueError."""
    try:
        return next(csv.reader([text]), [])
    except csv.Error:
        raise ValueError(_NO_NAMES) from None


# Names of columns in one parameter of a query model. FastAPI gives the validator a list of the parameter's values.
NameList: TypeAlias = Annotated[
    list[str],
    BeforeValidator(lambda values: _parse_names(values[0]) if len(values) == 1 else values),
    DocumentedAs(str),
]


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
            check_query(request.query_params, set(_parameter_names(route.dependant)))

    return Depends(check)


def _parameter_names(dependant: Dependant) -> Iterator[str]:
    for parameter in dependant.query_params:
        model = parameter.field_info.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            yield from (field.alias or name for name, field in model.model_fields.items())
        else:
            yield parameter.alias
    for dependency in dependant.dependencies:
        yield from _parameter_names(dependency)


def check_query(query: QueryParams, known: Collection[str]) -> None:
    """Raise InvalidInput for a parameter that is not known, or is given more than once."""
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
