"""The common prediction, answered before a request object exists, because the layers below take most of its time.

A request is eligible if it is a short `POST /predict` whose JSON body has only rows, without further options or special
headers. The route handles any other request, and any that fails here, with the untouched body. Both ways give the same
bytes, request ids, metrics and limits.

This code makes few calls, because each call takes a measurable part of the time.
"""

import asyncio
import re
import time

import numpy as np
import orjson
from fastapi.routing import APIRoute

from app.data.json_encoder import OrdinaryEncoder
from app.data.predict_decoder import Rows, RowsDecoder, to_array
from app.monitoring.taps import Tap
from app.prediction.encoding import encode_few, encode_predictions
from app.prediction.predictor import MAX_INLINE_MULTIPLIES
from app.registry.version_file import Version
from app.regression.linear_model import MAX_PYTHON_MULTIPLIES
from app.storage.memory_budget import LARGE_BODY
from app.web.auth import AccessScope
from app.web.middleware import REQUEST_ID, SECURITY_HEADERS, kept_id, new_id
from app.web.routes.predict import router
from app.web.state import Services
from app.web.version_headers import MIN_VERSION, VERSION

_PATH = next(route.path for route in router.routes if isinstance(route, APIRoute) and route.path == "/predict")
_NOT_IN_FIELD_NAMES = re.compile(r'["\\]').search  # Characters that msgspec does not escape in names of fields.
# Values that an eligible request may have in these headers.
_ELIGIBLE_HEADERS = {
    b"content-type": {b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"},
    b"accept": {b"*/*", b"application/json", b"application/json, text/plain, */*"},
    b"content-encoding": set(),
    MIN_VERSION.encode(): set(),
}
_AFTER_ID = b"".join(b"\r\n%b: %b" % header for header in SECURITY_HEADERS) + b"\r\n\r\n"


class PredictFastPath:
    """Implements `app.server.hooks.FastPath`. The connections of a process share it."""

    target = _PATH.encode()
    max_bytes = LARGE_BODY

    def __init__(self, services: Services) -> None:
        self._services = services
        self._access = services.access
        self._prepared: PreparedModel | None = None  # For the version that was predicted with last.
        self._is_current = False
        self._common: list[tuple[bytes, bytes]] | None = None  # The server's own headers, and _head made from them.
        self._head = b""
        self.is_open = not services.logs_predictions  # A log record takes longer than the route.

    def match(self, headers: list[tuple[bytes, bytes]]) -> bytes | None:
        """Return the id of an eligible request with these headers, their names in lower case; None for any other."""
        if self._access.has_keys and not self._access.allows(headers, AccessScope.PREDICT):
            return None
        typed = False
        identity: bytes | None = None
        for name, value in headers:
            if name in _ELIGIBLE_HEADERS:
                if value not in _ELIGIBLE_HEADERS[name] or (typed and name == b"content-type"):
                    return None
                typed = typed or name == b"content-type"
            elif name == REQUEST_ID and identity is None:
                identity = kept_id(value)
        return (identity or new_id()) if typed else None

    def answer(
        self, body: bytes, identity: bytes, started: float, common: list[tuple[bytes, bytes]]
    ) -> tuple[bytes, bytes] | None:
        """Return the head and the body of the response to an eligible body; None if the body is not eligible.

        `started` is the time by `time.perf_counter` at which the headers were complete. `common` are the headers of
        every response.
        """
        services = self._services
        if len(body) > services.max_json_bytes:
            return None
        try:
            prepared = self._prepared
            if prepared is None or not self._is_current:
                prepared = self._current_model(services)
            if prepared.decode is None:
                return None
            rows, as_objects = prepared.decode(body)
            if not 0 < len(rows) <= min(services.max_instances, prepared.max_rows):
                return None
            content = prepared.predict(rows, as_objects=as_objects)
        except Exception:  # The route meets the same fault and reports it.
            return None
        if common is not self._common:
            self._common = common
            fields = b"".join(b"%b: %b\r\n" % header for header in common)
            self._head = b"HTTP/1.1 200 OK\r\n%bcontent-length: " % fields
        services.metrics.answered("POST", _PATH, 200, time.perf_counter() - started, len(rows))
        return b"%b%d%b%b%b" % (self._head, len(content), prepared.before_id, identity, _AFTER_ID), content

    def _current_model(self, services: Services) -> "PreparedModel":
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
            self._prepared = PreparedModel(version, services.monitor.tap(version))
        self._is_current = True
        asyncio.get_running_loop().call_soon(self._expire)
        return self._prepared

    def _expire(self) -> None:
        self._is_current = False


class PreparedModel:
    """A version, with everything that its predictions need prepared once."""

    def __init__(self, version: Version, tap: Tap) -> None:
        model, encoder = version.model, version.encoder
        self.version = version
        self._note = tap.note
        names, types = encoder.names, [column.ordinary_type for column in encoder.columns]
        # Only the route can decode features with names that msgspec does not accept.
        self.decode = None if any(map(_NOT_IN_FIELD_NAMES, names)) else RowsDecoder(names, types).decode
        self.max_rows = MAX_INLINE_MULTIPLIES // model.coef.size
        self._max_few = 0 if model.terms else MAX_PYTHON_MULTIPLIES // model.coef.size  # Rows.
        self._encoder = None if encoder.is_plain else OrdinaryEncoder(encoder)
        # The headers between the length and the request id.
        headers = f"content-type: application/json\r\n{VERSION}: {version.card.version}"
        self.before_id = b"\r\n%b\r\n%b: " % (headers.encode(), REQUEST_ID)
        self._beginning = orjson.dumps({"model": version.card.model, "version": version.card.version})[:-1]

    def predict(self, rows: Rows, *, as_objects: bool) -> bytes:
        """Return the body of the response, and leave the encoded rows in the tap.

        Raises PredictionTooLarge, or LookupError, TypeError or ValueError for a value that only the route can read.
        """
        model, encoder = self.version.model, self._encoder
        if len(rows) <= self._max_few and not isinstance(rows, np.ndarray):
            values = rows if encoder is None else encoder.few(rows)
            predictions = encode_few(model.predict_few(values), model.targets, as_objects=as_objects)
            self._note(values, len(rows))
        else:
            if encoder is None or isinstance(rows, np.ndarray):
                x = to_array(rows, len(model.features))
            else:
                x = encoder.matrix(rows)
            predictions = encode_predictions(model.predict(x), model.targets, as_objects=as_objects)
            self._note(x, len(rows))
        return b'%b,"predictions":%b}' % (self._beginning, predictions)
