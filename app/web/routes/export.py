"""Export a version in a format that other programs can run."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.responses import Response

from app import __version__
from app.data.names import MAX_NAME_LENGTH, did_you_mean, listed, shown
from app.errors import InvalidInput
from app.exchange import EXPORTS
from app.exchange.base import Export
from app.exchange.version_file_writer import LinserveExport
from app.registry.version_file import Version
from app.web.auth import AccessScope, require_scope
from app.web.query import ModelName, VersionNumber, check_query
from app.web.routes.models import IfNoneMatch, etag_matches, version_file
from app.web.schemas.problems import problem_responses
from app.web.state import get_memory, get_services
from app.web.version_headers import VERSION

router = APIRouter(tags=["Models"], dependencies=[require_scope(AccessScope.READ)])

FORMATS = {export.name: export for export in EXPORTS}
NOT_EXPORTED = "linserve-not-exported"  # Response header with sentences on what the format cannot carry.
MAX_TEXT = 3 * MAX_NAME_LENGTH  # Characters of an option that may have any text.
# Bytes that writing takes, measured: per byte of the version, for its statistics as JSON, and per coefficient. Programs
# take most for each coefficient, and the largest of them have few.
FILE_FACTOR = 8
COEFFICIENT_BYTES = 1_000
PROGRAM_BYTES = 9_000
MAX_PROGRAM_COEFFICIENTS = 20_000


def _parameters() -> list[dict[str, Any]]:
    """Return the parameters of the query for the OpenAPI document, from the table of formats."""
    options = {name: values for export in EXPORTS for name, values in export.options.items()}
    schemas = {name: {"enum": [*values]} if values else {"maxLength": MAX_TEXT} for name, values in options.items()}

    def parameter(name: str, description: str, schema: Mapping[str, Any], *, required: bool = False) -> dict[str, Any]:
        rules = {"type": "string", **schema}
        return {"name": name, "in": "query", "required": required, "schema": rules, "description": description}

    formats = parameter("format", "Format of the file.", {"enum": list(FORMATS)}, required=True)
    return [{**formats, "example": EXPORTS[0].name}] + [
        parameter(name, f"Only with `format={_formats_with(name)}`.", schema) for name, schema in schemas.items()
    ]


def _formats_with(option: str) -> str:
    return "` or `".join(export.name for export in EXPORTS if option in export.options)


_DESCRIPTION = (
    "The header `Linserve-Not-Exported` has a sentence for each thing that the format cannot carry, such as intervals. "
    "The file repeats them if it can hold text. If a format cannot hold the model at all, the response is 422."
)
_NOT_EXPORTED = {
    "description": "Parts of the version that the format cannot carry: sentences, separated by `;`.",
    "schema": {"type": "string"},
}
_DOCUMENTED: dict[str, Any] = {
    "description": _DESCRIPTION,
    "response_class": Response,
    "openapi_extra": {"parameters": _parameters()},
    "responses": {
        200: {
            "description": "The file.",
            "content": {
                media_type: {"schema": {"type": "string", "format": "binary"}}
                for media_type in dict.fromkeys(export.media_type for export in EXPORTS)
            },
            "headers": {"Linserve-Not-Exported": _NOT_EXPORTED},
        },
        **problem_responses(404, 422),
    },
}


@router.get(
    "/models/{model}/export",
    name="exportModel",
    summary="Export a model's current version for another program",
    **_DOCUMENTED,
)
def export_model(request: Request, model: ModelName, if_none_match: IfNoneMatch = None) -> Response:
    export, options = _chosen(request)
    return _exported(request, get_services(request).registry.current(model), export, options, if_none_match)


@router.get(
    "/models/{model}/versions/{version}/export",
    name="exportVersion",
    summary="Export a version for another program",
    **_DOCUMENTED,
)
def export_version(
    request: Request, model: ModelName, version: VersionNumber, if_none_match: IfNoneMatch = None
) -> Response:
    export, options = _chosen(request)
    return _exported(request, get_services(request).registry.version(model, version), export, options, if_none_match)


def _chosen(request: Request) -> tuple[Export, dict[str, str]]:
    """Return the format and its options, with the defaults. Raises InvalidInput."""
    query = request.query_params
    name = query.get("format")
    if name is None:
        raise InvalidInput.of_parameter("format", f"`format` is missing. Formats: {listed(list(FORMATS))}.")
    export = FORMATS.get(name)
    if export is None:
        hint = did_you_mean(name, FORMATS)
        raise InvalidInput.of_parameter(
            "format", f"{shown(name)} is not a format of exports.{hint} Formats: {listed(list(FORMATS))}."
        )
    check_query(query, {"format", *export.options})
    options = {option: values[0] if values else "" for option, values in export.options.items()}
    for option in options.keys() & query.keys():
        value, values = query[option], export.options[option]
        if values and value not in values:
            hint = did_you_mean(value, values)
            raise InvalidInput.of_parameter(
                option, f"{shown(value)} is not a {option} of {name}.{hint} Expected one of {listed(values)}."
            )
        if len(value) > MAX_TEXT:
            raise InvalidInput.of_parameter(option, f"`{option}` has at most {MAX_TEXT} characters. Shorten it.")
        options[option] = value
    return export, options


def _exported(
    request: Request, version: Version, export: Export, options: Mapping[str, str], if_none_match: str | None
) -> Response:
    card = version.card
    chosen = "".join(f"/{quote(value, safe='')}" for value in options.values())
    # The tag is weak, because a file may hold the time at which it was written, or its metadata in any order.
    etag = f'W/"{card.model}/{card.version}/{export.name}{chosen}/{__version__}"'
    headers = {"etag": etag, VERSION: str(card.version)}
    if etag_matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    if not_carried := "; ".join(sentence.rstrip(".") for sentence in export.not_carried(version)):
        headers[NOT_EXPORTED] = not_carried
    headers["content-disposition"] = f'attachment; filename="{card.model}-{card.version:06d}{export.extension}"'
    if isinstance(export, LinserveExport):  # The registry has this file already, and its folds with it.
        return version_file(request, card.model, card.version, headers, export.media_type)
    memory = get_memory(request)
    with memory.reserved(_writing_bytes(version)):
        content = export.write(version, options)
    memory.reserve(len(content))
    return Response(content, media_type=export.media_type, headers=headers)


def _writing_bytes(version: Version) -> int:
    """Return an estimate of the bytes that writing a version takes, in the format that takes most."""
    count = version.model.coef.size
    programs = PROGRAM_BYTES * min(count, MAX_PROGRAM_COEFFICIENTS)
    return FILE_FACTOR * version.size + COEFFICIENT_BYTES * count + programs
