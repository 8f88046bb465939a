"""The ordinary prediction, answered before there is a request: most of its time would go by in the layers below.

Ordinary is a short `POST /predict` with a JSON body of nothing but rows, without options or headers that ask for
something else. Whatever is not, or fails, goes on to the route with its body untouched; the route alone decides what is
right and wrong. What both answer is the same to the last byte, and so are request ids, metrics and limits.

Calls are few and flat here on purpose: at this speed each one shows.
"""

import asyncio
import re
import time
from typing import Any

import numpy as np
import orjson
from fastapi.routing import APIRoute

from app.data.formats.json import to_objects
from app.data.predict_decoder import Rows, RowsDecoder, to_array
from app.registry.version_file import Version
from app.regression.linear_model import MAX_PYTHON_MULTIPLIES
from app.storage.memory_budget import LARGE_BODY
from app.web.auth import AccessScope
from app.web.middleware import REQUEST_ID, SECURITY_HEADERS, kept_id, new_id
from app.web.routes.predict import MAX_INLINE_MULTIPLIES, router
from app.web.state import Services

_AWKWARD = re.compile(r'["\\]').search

_ROUTE = next(route for route in router.routes if isinstance(route, APIRoute) and route.path == "/predict")
_PATH = _ROUTE.path

_ORDINARY_HEADERS = {
    b"content-type": {b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"},
    b"accept": {b"*/*", b"application/json", b"application/json, text/plain, */*"},
    b"content-encoding": set(),
}
_BEFORE_ID = b"\r\ncontent-type: application/json\r\n%b: " % REQUEST_ID
_AFTER_ID = b"".join(b"\r\n%b: %b" % header for header in SECURITY_HEADERS) + b"\r\n\r\n"


class PredictFastPath:
    """What all connections of a process share."""

    target = _PATH.encode()
    most_bytes = LARGE_BODY

    def __init__(self, services: Services) -> None:
        self._services = services
        self._access = services.access
        self._prepared: _Prepared | None = None  # for the version that came last
        self._is_current = False
        self._common: list[tuple[bytes, bytes]] | None = None  # the server's own headers, and as they are written:
        self._head = b""
        self.is_open = not services.logs_predictions  # a line in the log costs more than the route

    def identity(self, headers: list[tuple[bytes, bytes]]) -> bytes | None:
        """The id of a request with these headers, their names in small letters; None where they ask for something."""
        if self._access.has_keys and not self._access.allows(headers, AccessScope.PREDICT):
            return None
        typed = False
        identity: bytes | None = None
        for name, value in headers:
            if name in _ORDINARY_HEADERS:
                if value not in _ORDINARY_HEADERS[name] or (typed and name == b"content-type"):
                    return None
                typed = typed or name == b"content-type"
            elif name == REQUEST_ID and identity is None:
                identity = kept_id(value)
        return (identity or new_id()) if typed else None

    def answer(
        self, body: bytes, identity: bytes, started: float, common: list[tuple[bytes, bytes]]
    ) -> list[bytes] | None:
        """The answer to an ordinary body, as it is written; None where the body turns out to be another.

        `started` is when its headers had come, by `time.perf_counter`; `common` are headers that every answer has.
        """
        services = self._services
        if len(body) > services.limits.json_bytes:
            return None
        try:
            prepared = self._prepared
            if prepared is None or not self._is_current:
                prepared = self._prepare(services)
            if prepared.decode is None:
                return None
            rows, objects = prepared.decode(body)
            if not 0 < len(rows) <= min(services.limits.instances, prepared.most_rows):
                return None
            answer = prepared.answer(rows, objects=objects)
        except Exception:  # whatever it is, the route meets it too, and says so as it should be said
            return None
        if common is not self._common:
            self._common = common
            fields = b"".join(b"%b: %b\r\n" % header for header in common)
            self._head = b"HTTP/1.1 200 OK\r\n%bcontent-length: " % fields
        services.metrics.answered("POST", _PATH, 200, time.perf_counter() - started, len(rows))
        return [b"%b%d%b%b%b" % (self._head, len(answer), _BEFORE_ID, identity, _AFTER_ID), answer]

    def _prepare(self, services: Services) -> "_Prepared":
        """The current version, for this request and those that wait beside it.

        Raises LookupError where its file has to be read, for which the route has threads.

        Whatever runs before the event loop looks for new bytes again has arrived already, so that the version is
        current for all of it: one look is enough, however many requests came at once.
        """
        version = services.registry.get_cached(services.default_model)
        if version is None:
            raise LookupError
        if self._prepared is None or self._prepared.version is not version:
            self._prepared = _Prepared(version)
        self._is_current = True
        asyncio.get_running_loop().call_soon(self._look_again)
        return self._prepared

    def _look_again(self) -> None:
        self._is_current = False


class _Prepared:
    """What a version needs at every request, made once."""

    def __init__(self, version: Version) -> None:
        model = version.model
        self.version = version
        # Names that msgspec cannot take are for the route alone.
        self.decode = RowsDecoder(model.features).decode if not any(map(_AWKWARD, model.features)) else None
        self._few = 0 if model.terms else MAX_PYTHON_MULTIPLIES // model.coef.size  # rows
        self.most_rows = MAX_INLINE_MULTIPLIES // model.coef.size
        self._beginning = orjson.dumps({"model": version.card.model, "version": version.card.version})[:-1]

    def answer(self, rows: Rows, *, objects: bool) -> bytes:
        """Raises PredictionTooLarge."""
        model = self.version.model
        if len(rows) <= self._few and not isinstance(rows, np.ndarray):
            few: Any = model.predict_few(rows)
            if objects:
                few = [dict(zip(model.targets, row)) for row in few]  # noqa: B905 - as long by their making
            predictions = orjson.dumps(few)
        else:
            many = model.predict(to_array(rows, len(model.features)))
            predictions = (
                to_objects(many, model.targets)
                if objects
                else orjson.dumps(np.ascontiguousarray(many), None, orjson.OPT_SERIALIZE_NUMPY)
            )
        return b'%b,"predictions":%b}' % (self._beginning, predictions)
