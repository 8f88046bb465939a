"""The trace that a request belongs to (W3C Trace Context), for the log."""

import re

from app.web.auth import Headers

_TRACEPARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


def trace_fields(headers: Headers) -> dict[str, str]:
    """Return the fields of a log record for a request with these headers: none without one valid `traceparent`."""
    values = [value for name, value in headers if name == b"traceparent"]
    match = _TRACEPARENT.fullmatch(values[0]) if len(values) == 1 else None
    if match is None or (match[1] == b"00" and match[4] is not None):  # Only later versions may have further parts.
        return {}
    return {"trace_id": match[2].decode(), "span_id": match[3].decode()}
