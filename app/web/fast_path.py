"""Common predictions, answered before a request object exists, because the layers below take most of its time.

A request is eligible if it is a short `POST` to the path of a wire format for the default model, whose body has only
rows, without further options or special headers. The rows are JSON, or a binary tensor after JSON. The route handles
any other request, and any that fails here, with the untouched body. Both ways give the same bytes, request ids, metrics
and limits.

This code makes few calls, because each call takes a measurable part of the time.
"""

import asyncio
import time
from collections.abc import Collection

from app.monitoring.taps import Tap
from app.prediction.predictor import MAX_INLINE_MULTIPLIES
from app.registry.version_file import Version
from app.storage.memory_budget import LARGE_BODY
from app.web.auth import AccessScope
from app.web.fast_formats import FAST_FORMATS
from app.web.middleware import REQUEST_ID, SECURITY_HEADERS, kept_id, new_id
from app.web.prepared_model import PreparedModel
from app.web.protocols.inference import HEADER_LENGTH
from app.web.state import Services

# Bytes of JSON before a binary tensor, and digits of their number.
MAX_HEAD, MAX_DIGITS = 4 << 10, 4
# Bytes of a body with a binary tensor. More values are not predicted on the event loop.
MAX_BINARY = MAX_HEAD + 8 * MAX_INLINE_MULTIPLIES

_HEADER_LENGTH = HEADER_LENGTH.encode()
_AFTER_ID = b"".join(b"\r\n%b: %b" % header for header in SECURITY_HEADERS) + b"\r\n\r\n"


def fast_paths(services: Services, taken: Collection[str] = ()) -> dict[bytes, "PredictFastPath"]:
    """Return the fast paths by their targets, except those of paths that are `taken` by other routes."""
    if services.logs_predictions:  # A log record takes longer than the route.
        return {}
    tap = _CurrentTap(services)
    paths = {each.route.replace("{model}", services.default_model): each for each in FAST_FORMATS}
    return {
        path.encode(): PredictFastPath(services, prepare, tap) for path, prepare in paths.items() if path not in taken
    }


class _CurrentTap:
    """The tap of the current version, which all fast paths of a process share."""

    def __init__(self, services: Services) -> None:
        self._monitor = services.monitor
        self._tap: Tap | None = None

    def of(self, version: Version) -> Tap:
        if self._tap is None or self._tap.version is not version:
            self._tap = self._monitor.tap(version)
        return self._tap


class PredictFastPath:
    """Implements `app.server.hooks.FastPath` for one wire format. The connections of a process share it."""

    def __init__(self, services: Services, prepare: type[PreparedModel], tap: _CurrentTap) -> None:
        self._services = services
        self._prepare, self._tap = prepare, tap
        self._route, self._has_any_type = prepare.route, not prepare.needs_type
        self.max_bytes = MAX_BINARY if prepare.has_binary else LARGE_BODY
        self._max_json_bytes = min(services.max_json_bytes, LARGE_BODY)
        self._access = services.access
        # Only the route responds to pages of other origins, if any may read responses.
        self._eligible = {**prepare.headers, **({b"origin": set()} if services.cors_origins else {})}
        self._prepared: PreparedModel | None = None  # For the version that was predicted with last.
        self._is_current = False
        self._common: list[tuple[bytes, bytes]] | None = None  # The server's own headers, and _head made from them.
        self._head = b""

    def match(self, headers: list[tuple[bytes, bytes]]) -> tuple[bytes, int] | None:
        """Return the id of an eligible request, and the length of its JSON before other bytes, or 0 if it is all JSON.

        Return None for any other. The names of the headers are in lower case.
        """
        if self._access.has_keys and not self._access.allows(headers, AccessScope.PREDICT):
            return None
        typed, eligible = self._has_any_type, self._eligible
        identity: bytes | None = None
        for name, value in headers:
            if name in eligible:
                if value not in eligible[name] or (typed and name == b"content-type"):
                    return None
                typed = typed or name == b"content-type"
            elif name == REQUEST_ID and identity is None:
                identity = kept_id(value)
        json_bytes = self._json_bytes(headers) if self._prepare.has_binary else 0
        return (identity or new_id(), json_bytes) if typed and json_bytes is not None else None

    def _json_bytes(self, headers: list[tuple[bytes, bytes]]) -> int | None:
        """Return the length of the JSON before other bytes; 0 if it is not given, or None if it is not acceptable."""
        given = [value for name, value in headers if name == _HEADER_LENGTH]
        if not given:
            return 0
        is_number = len(given) == 1 and given[0].isdigit() and len(given[0]) <= MAX_DIGITS
        return int(given[0]) or None if is_number and int(given[0]) <= MAX_HEAD else None

    def answer(
        self, body: bytes, identity: bytes, started: float, common: list[tuple[bytes, bytes]], json_bytes: int = 0
    ) -> tuple[bytes, bytes] | None:
        """Return the head and the body of the response to an eligible body; None if the body is not eligible.

        `started` is the time by `time.perf_counter` at which the headers were complete. `common` are the headers of
        every response. `json_bytes` is the second value of `match`.
        """
        services = self._services
        if len(body) > (services.max_json_bytes if json_bytes else self._max_json_bytes):
            return None
        try:
            prepared = self._prepared
            if prepared is None or not self._is_current:
                prepared = self._current_model(services)
            if prepared.decode is None:
                return None
            rows, form = prepared.decode_binary(body, json_bytes) if json_bytes else prepared.decode(body)
            if not 0 < len(rows) <= min(services.max_instances, prepared.max_rows):
                return None
            content, json_bytes = prepared.encode(prepared.predict(rows), form)
        except Exception:  # The route meets the same fault and reports it.
            return None
        if common is not self._common:
            self._common = common
            fields = b"".join(b"%b: %b\r\n" % header for header in common)
            self._head = b"HTTP/1.1 200 OK\r\n%b" % fields
        services.metrics.answered("POST", self._route, 200, time.perf_counter() - started, len(rows))
        head, before_id = self._head, prepared.before_id
        if json_bytes:
            head, before_id = b"%b%b: %d\r\n" % (head, _HEADER_LENGTH, json_bytes), prepared.before_id_binary
        return b"%bcontent-length: %d%b%b%b" % (head, len(content), before_id, identity, _AFTER_ID), content

    def _current_model(self, services: Services) -> PreparedModel:
        """Return the current version. It is looked up once per iteration of the event loop.

        All requests that one iteration handles had arrived before it began.

        Raises LookupError if a file or a store has to be read, for which the route has threads; also while a traffic
        split applies, because only the route knows the client.
        """
        version = services.registry.get_cached(services.default_model)
        if version is None:
            raise LookupError
        split = services.splits.get_cached(services.default_model)
        if split is not None and split.current == version.card.version:
            raise LookupError
        if self._prepared is None or self._prepared.version is not version:
            self._prepared = self._prepare(version, self._tap.of(version))
        self._is_current = True
        asyncio.get_running_loop().call_soon(self._expire)
        return self._prepared

    def _expire(self) -> None:
        self._is_current = False
