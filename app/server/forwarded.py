"""The path prefix that a trusted proxy names in X-Forwarded-Prefix. uvicorn reads the other headers of proxies."""

import re

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.server.hooks import Headers

HEADER = b"x-forwarded-prefix"
MAX_PREFIX_BYTES = 200
# Segments that do not begin with a dot. A prefix begins links, so it must not be a URL of another host.
_PREFIX = re.compile(rb"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+/?|/")


def trusts(app: object, client: tuple[str, int] | None) -> bool:
    """Return True if the app that uvicorn runs believes the headers of a proxy at this address."""
    host = client[0] if client else None
    return isinstance(app, ProxyHeadersMiddleware) and host in app.trusted_hosts


def forwarded_prefix(headers: Headers) -> str | None:
    """Return the prefix without a slash at its end, or None if there is not exactly one that is valid."""
    values = [value.strip() for name, value in headers if name == HEADER]
    if len(values) != 1 or len(values[0]) > MAX_PREFIX_BYTES or not _PREFIX.fullmatch(values[0]):
        return None
    return values[0].decode("ascii").rstrip("/")
