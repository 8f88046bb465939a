"""The ordinary prediction, answered before the router: most of a request's time would go by in the layers below.

Ordinary is a short `POST /predict` with a JSON body of nothing but rows, without options or headers that ask for
something else. Whatever is not, or fails, goes on to the route with its body untouched; the route alone decides what is
right and wrong. What both answer is the same to the last byte, and so are request ids, metrics and limits.

Calls are few and flat here on purpose: at this speed each one shows.
"""

import asyncio
import re
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.data.json_rows import to_objects
from app.data.typed_rows import RowsDecoder, to_array
from app.registry.version_file import Version
from app.regression.linear_model import FEW_PRODUCTS
from app.web.middleware import REQUEST_ID, kept_id, log_request, new_id
from app.web.predict import LARGE_BODY, MOST_PRODUCTS, router
from app.web.services import Services

MOST_MESSAGES = 16  # a body in more parts than that is handed on as far as it came

_AWKWARD = re.compile(r'["\\]').search

_ROUTE = next(route for route in router.routes if isinstance(route, APIRoute) and route.path == "/predict")
_PATH = _ROUTE.path

_ORDINARY_HEADERS = {
    b"content-type": {b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"},
    b"accept": {b"*/*", b"application/json", b"application/json, text/plain, */*"},
    b"content-encoding": {b"identity"},
}


class PredictLane:
    """An ASGI middleware, the outermost."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._prepared: _Prepared | None = None  # for the version that came last
        self._is_current = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != _PATH or (identity := _identity_of_ordinary(scope)) is None:
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        message = await receive()
        messages = [message]
        while message.get("more_body", False) and len(messages) < MOST_MESSAGES:
            message = await receive()
            messages.append(message)
        if message["type"] == "http.request" and not message.get("more_body", False):
            body = message["body"] if len(messages) == 1 else b"".join(part["body"] for part in messages)
            services: Services = scope["state"]["services"]
            answered = self._answer(body, services)
            if answered is not None:
                answer, rows = answered
                headers = [
                    (b"content-length", b"%d" % len(answer)),
                    (b"content-type", b"application/json"),
                    (REQUEST_ID, identity),
                ]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": answer})
                seconds = time.perf_counter() - started
                services.metrics.answered("POST", _PATH, 200, seconds, rows)
                if services.logs_predictions:
                    log_request(scope, 200, seconds, identity)
                return
        replayed = iter(messages)

        async def replay() -> Message:
            return next(replayed, None) or await receive()

        await self.app(scope, replay, send)

    def _answer(self, body: bytes, services: Services) -> tuple[bytes, int] | None:
        """The answer to an ordinary body, and its number of rows; None where it turns out to be another."""
        if len(body) > LARGE_BODY or len(body) > services.limits.json_bytes:
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
            return prepared.answer(rows, objects=objects), len(rows)
        except Exception:  # whatever it is, the route meets it too, and says so as it should be said
            return None

    def _prepare(self, services: Services) -> "_Prepared":
        """The current version, for this request and those that wait beside it.

        Whatever runs before the event loop looks for new bytes again has arrived already, so that the version is
        current for all of it: one look is enough, however many requests came at once.
        """
        version = services.registry.current(services.default_model)
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
        self._few = 0 if model.terms else FEW_PRODUCTS // model.weights.size  # rows
        self.most_rows = MOST_PRODUCTS // model.weights.size
        self._beginning = orjson.dumps({"model": version.card.model, "version": version.card.version})[:-1]

    def answer(self, rows: Sequence[Sequence[float]], *, objects: bool) -> bytes:
        """Raises PredictionTooLarge."""
        model = self.version.model
        if len(rows) <= self._few:
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


def _identity_of_ordinary(scope: Scope) -> bytes | None:
    """The id of a request that asks for nothing unusual; None for one that does."""
    if scope["method"] != "POST" or scope["query_string"]:
        return None
    typed = False
    identity: bytes | None = None
    for name, value in scope["headers"]:
        if name in _ORDINARY_HEADERS:
            if value not in _ORDINARY_HEADERS[name]:
                return None
            typed = typed or name == b"content-type"
        elif name == REQUEST_ID and identity is None:
            identity = kept_id(value)
    return (identity or new_id()) if typed else None
