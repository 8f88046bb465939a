"""The same request for programs: a line for curl, and lines for Python with httpx."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from fastapi import Request

from app.web.paths import prefix

KEY = "YOUR_API_KEY"  # Placeholder for the reader's API key.


def base_url(request: Request) -> str:
    """Return the URL of the service as the browser reached it, without a slash at its end."""
    return f"{request.url.scheme}://{request.url.netloc}{prefix(request.scope)}"


def curl_line(url: str, payload: Mapping[str, Any] | None = None, *, key: bool, output: str | None = None) -> str:
    """Return a line for a POSIX shell, which sends the payload as JSON, or gets the URL without one.

    The response is written to the file `output` if it is given.
    """
    words = ["curl", "--silent", "--show-error"]
    if output is not None:
        words += ["--fail", "--output", output]
    if key:
        words += ["--header", f"Authorization: Bearer {KEY}"]
    if payload is not None:
        words += ["--header", "Content-Type: application/json", "--data-raw", _json(payload)]
    return shlex.join([*words, url])


def python_lines(url: str, payload: Mapping[str, Any] | None = None, *, key: bool) -> str:
    """Return a program that sends the payload as JSON, or gets the URL without one."""
    arguments = [_literal(url)]
    if payload is not None:
        arguments.append(f"json={_literal(payload)}")
    if key:
        arguments.append(f'headers={{"Authorization": "Bearer {KEY}"}}')
    method = "get" if payload is None else "post"
    call = "".join(f"    {argument},\n" for argument in arguments)
    return f"import httpx\n\nresponse = httpx.{method}(\n{call})\nprint(response.raise_for_status().json())"


def _json(payload: Mapping[str, Any]) -> str:
    """Return JSON in one line. Characters that a terminal would not show are escaped."""
    text = json.dumps(payload, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(payload)


def _literal(value: Any) -> str:
    """Return a value as Python source, in which nothing of the value can end the literal."""
    text = repr(value)
    return text if text.isprintable() else ascii(value)
