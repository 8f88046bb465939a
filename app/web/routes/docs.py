"""Documentation: Swagger UI without requests to other hosts, and a list of calls for curl."""

import json
import shlex
from html import escape
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from app.web.bodies import json_response
from app.web.paths import prefix

router = APIRouter(include_in_schema=False)

ASSETS = "/docs/assets"

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} - Swagger UI</title>
<link rel="icon" href="{root}{assets}/favicon.png">
<link rel="stylesheet" href="{root}{assets}/swagger-ui.css">
</head>
<body>
<div id="swagger-ui" data-url="{root}/openapi.json"></div>
<script src="{root}{assets}/swagger-ui-bundle.js"></script>
<script src="{root}/static/docs.js"></script>
</body>
</html>
"""
# Swagger UI has style attributes.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class WholeFiles(StaticFiles):
    """Static files without ranges, because Starlette does not respond to a wrong range with a problem."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
        await super().__call__({**scope, "headers": headers}, receive, send)


def install(app: FastAPI) -> None:
    """Serve the documentation."""
    # The files are in the package fastapi-offline, which would be imported if its name were given alone.
    app.mount(ASSETS, WholeFiles(packages=[("fastapi_offline", "static")]), name="swagger-ui")
    app.include_router(router)


@router.get("/")
def index(request: Request) -> Response:
    """List the calls, each with a curl line. Browsers get the page of the models, see `app.pages`."""
    return PlainTextResponse(_calls(request.app.openapi(), str(request.base_url).rstrip("/")))


@router.get("/openapi.json")
def openapi_document(request: Request) -> Response:
    """Return the OpenAPI document with the path prefix. The route runs in a thread, because this takes long."""
    return json_response({**request.app.openapi(), "servers": [{"url": prefix(request.scope) or "/"}]})


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    page = _PAGE.format(title=escape(request.app.title), root=escape(prefix(request.scope)), assets=ASSETS)
    return HTMLResponse(page, headers={"content-security-policy": _POLICY})


def _calls(document: dict[str, Any], base: str) -> str:
    """List each operation of the OpenAPI document with a curl line made from its examples."""
    lines = [
        f"{document['info']['title']}: {document['info']['summary']}",
        f"In a browser: {base}/ and {base}/docs",
        "",
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            lines += [operation["summary"], f"  {_curl(base, method, path, operation)}", ""]
    return "\n".join(lines)


def _curl(base: str, method: str, path: str, operation: dict[str, Any]) -> str:
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", str(parameter.get("example", "...")))
    words = ["curl"]
    default = "get"
    if body := operation.get("requestBody", {}).get("content", {}).get("application/json"):
        example = next(iter(body["examples"].values()))["value"]
        words += ["--json", shlex.quote(json.dumps(example))]
        default = "post"
    if method != default:
        words += ["-X", method.upper()]
    return " ".join([*words, f"{base}{path}"])
