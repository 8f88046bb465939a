"""Plans that read, change and move models."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from linserve._bodies import OCTETS, body_of_source, is_source, json_body
from linserve._options import given, in_query
from linserve._plans.training import JobRequest, replace_type
from linserve._results import Exported, ModelSummary
from linserve._retries import Retries, send
from linserve._sinks import Output, sink_of
from linserve._steps import Body, Call, Plan, path_of

_NOT_FOUND = 404
EXPORT_HEADER = "content-disposition"  # Header that every export has.


def request(retries: Retries, method: str, path: str, params: Mapping[str, Any] | None, json: Any) -> Plan[Any]:
    """Send any request, and return the JSON of the response, or None if it has none."""
    if not path.startswith("/"):
        raise ValueError(f"The path {path!r} does not begin with a slash.")
    texts = in_query(given(params or {}))
    if texts is None:
        raise ValueError("The parameters are too long for a query.")
    body = None if json is None else json_body(json)
    repeatable = method.upper() not in ("POST", "PATCH")
    answer = yield from send(Call(method.upper(), path, texts, {}, body, repeatable=repeatable), retries)
    return answer.json() if answer.content else None


def models(retries: Retries) -> Plan[list[ModelSummary]]:
    """Return all models, by their names."""
    found: list[ModelSummary] = []
    token: str | None = None
    while True:
        params = {"limit": "200"} | ({} if token is None else {"next": token})
        page = (yield from send(Call("GET", "/models", params), retries)).json("items", "next")
        found += page["items"]
        token = page["next"]
        if token is None:
            return found


def card(retries: Retries, model: str, version: int | None, options: Mapping[str, Any]) -> Plan[dict[str, Any]]:
    """Return the card of a version, by default of the current one."""
    path = path_of("models", model, *(() if version is None else ("versions", version)))
    answer = yield from send(Call("GET", path, in_query(given(options)) or {}), retries)
    found: dict[str, Any] = answer.json("model")
    return found


def promote(retries: Retries, model: str, version: int) -> Plan[dict[str, Any]]:
    """Make the version the current one, and return its card."""
    call = Call("PUT", path_of("models", model, "current"), body=json_body({"version": version}))
    promoted: dict[str, Any] = (yield from send(call, retries)).json("version")
    return promoted


def rollback(retries: Retries, model: str) -> Plan[dict[str, Any]]:
    """Make the newest version before the current one the current one, and return its card."""
    answer = yield from send(Call("GET", path_of("models", model)), retries)
    current = answer.json("versions")
    if "version" not in current:
        raise ValueError(f"The model {model!r} has no current version. Promote one.")
    earlier = [number for number in current["versions"] if number < current["version"]]
    if not earlier:
        raise ValueError(f"The model {model!r} has no version before version {current['version']}, the current one.")
    call = Call(
        "PUT",
        path_of("models", model, "current"),
        headers={"if-match": answer.headers["etag"]},
        body=json_body({"version": max(earlier)}),
    )
    promoted: dict[str, Any] = (yield from send(call, retries)).json("version")
    return promoted


def delete(retries: Retries, model: str, version: int | None, *, force: bool) -> Plan[None]:
    """Delete a version, or a model as it is now."""
    if version is not None:
        call = Call("DELETE", path_of("models", model, "versions", version))
    else:
        answer = yield from send(Call("GET", path_of("models", model)), retries)
        answer.json("versions")
        params = {"force": "true"} if force else {}
        call = Call("DELETE", path_of("models", model), params, {"if-match": answer.headers["etag"]})
    answer = yield from send(call, retries)
    if answer.content and answer.status != _NOT_FOUND:  # gone since an earlier attempt
        raise answer.foreign()


def export(
    retries: Retries, model: str, version: int | None, options: Mapping[str, Any], output: Output | None
) -> Plan[Exported]:
    """Return the version in a format of `options`, or write it to `output`."""
    if version is None:
        current = yield from card(retries, model, None, {})
        if "version" not in current:
            raise ValueError(f"The model {model!r} has no current version. Give `version`.")
        version = current["version"]
    path = path_of("models", model, "versions", version, "export")
    sink = None if output is None else sink_of(output)
    succeeded = False
    try:
        call = Call("GET", path, in_query(given(options)) or {}, sink=sink, proof=EXPORT_HEADER)
        answer = yield from send(call, retries)
        succeeded = True
    finally:
        if sink is not None:
            sink.close(succeeded=succeeded)
    named = re.search(r'filename="([^"/\\]+)"', answer.headers[EXPORT_HEADER])
    sentences = answer.headers.get("linserve-not-exported", "").split("; ")
    return Exported(
        answer.content,
        named[1] if named else f"{model}-{version:06d}",
        answer.headers.get("content-type", ""),
        tuple(sentence for sentence in sentences if sentence),
    )


def import_model(
    retries: Retries,
    model: str,
    source: Any,
    names: Mapping[str, Sequence[str] | None],
    *,
    options: Mapping[str, Any],
    key: str | None,
) -> Plan[dict[str, Any]]:
    """Publish a fitted model as a new version. Return its card. Raises NotConvertible."""
    if is_source(source):
        body: Body = replace_type(body_of_source(source, fallback=OCTETS))
        options = {**options, **names}
    elif isinstance(source, Mapping):
        body = json_body(source)
    else:
        from linserve.convert import convert  # It loads NumPy.

        body = json_body(convert(source, **names))
    path = path_of("models", model, "versions")
    call = Call("POST", path, in_query(given(options)) or {}, JobRequest(key=key).headers, body)
    imported: dict[str, Any] = (yield from send(call, retries)).json("version")
    return imported
