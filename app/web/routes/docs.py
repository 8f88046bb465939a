"""Documentation: Swagger UI without requests to other hosts, and a list of calls for curl."""

import json
import re
import shlex
from base64 import b64encode
from hashlib import sha256
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from app.web.bodies import json_response
from app.web.paths import prefix

router = APIRouter(include_in_schema=False)

ASSETS = "/docs/assets"


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
async def index(request: Request) -> Response:
    """List the calls, each with a curl line. Browsers get the page of the models, see `app.pages`."""
    return PlainTextResponse(_calls(request.app.openapi(), str(request.base_url).rstrip("/")))


@router.get("/openapi.json")
async def openapi_document(request: Request) -> Response:
    """Return the OpenAPI document, with the path prefix of its calls."""
    return json_response({**request.app.openapi(), "servers": [{"url": prefix(request.scope) or "/"}]})


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    root = prefix(request.scope)
    page = get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title=f"{request.app.title} - Swagger UI",
        swagger_js_url=f"{root}{ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{root}{ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{root}{ASSETS}/favicon.png",
        swagger_ui_parameters={"displayRequestDuration": True, "defaultModelsExpandDepth": 0},
    )
    page.headers["content-security-policy"] = _policy(bytes(page.body))
    return page


def _policy(page: bytes) -> str:
    """Return a Content-Security-Policy for Swagger UI: this service's files and the one script in the page."""
    scripts = re.findall(rb"<script>(.*?)</script>", page, re.DOTALL)
    known = " ".join(f"'sha256-{b64encode(sha256(script).digest()).decode()}'" for script in scripts)
    return (
        f"default-src 'none'; script-src 'self' {known}; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


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
