"""Receive a model that was fitted elsewhere, and publish it as a version."""

import contextlib
import hashlib
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from app.errors import BodyTooLarge, FieldError, InvalidInput, KeyReused, MalformedBody, UnsupportedMediaType
from app.exchange import IMPORTS
from app.exchange.base import Import
from app.exchange.pickles import REFUSED, is_pickle
from app.registry.base import ModelPublisher, ParentChanged
from app.registry.names import MODEL_NAME, MODEL_NAME_RULE
from app.registry.origin import Imported
from app.registry.version_file import MAX_FILE_BYTES, Version
from app.storage.memory_budget import LARGE_BODY, Reservation
from app.web import bodies
from app.web.multipart import MEDIA_TYPE as FORM
from app.web.query import read_query
from app.web.recognition import open_form
from app.web.schemas.imports import ImportOptions
from app.web.state import Services, get_memory, get_services

NOT_COMPARED = (
    "Not promoted: an import brings no rows to compare versions on. Evaluate this version and the current one on rows "
    "with their targets, and promote it if it is better."
)
_UPLOADS = uuid.UUID("0d5c8a52-6f0e-5c3b-8d2e-3b8f6f6f3a57")  # Namespace of the upload ids made from Idempotency-Keys.


class _Received(NamedTuple):
    content: bytes
    options: ImportOptions
    format: Import


async def import_version(request: Request, model: str, idempotency_key: str | None) -> Version:
    """Read the model in the body, and publish it. The same key with the same request gives the same version."""
    services = get_services(request)
    if not re.fullmatch(MODEL_NAME, model):
        raise InvalidInput.of_parameter("model", MODEL_NAME_RULE)
    upload = f"import-{uuid.uuid5(_UPLOADS, idempotency_key)}" if idempotency_key else None
    with services.jobs.uploads.exclusive(upload) if upload else contextlib.nullcontext():
        received = await _receive(services, request)
        job = _Import(services, get_memory(request), model, upload, received)
        async with (
            services.large_body_limiter.slot() if len(received.content) > LARGE_BODY else contextlib.nullcontext()
        ):
            return await run_in_threadpool(job.publish)


async def _receive(services: Services, request: Request) -> _Received:
    """Read the body. Raises UnsupportedMediaType if it is in no format."""
    received = bodies.received_of(request)
    given = request.headers.getlist("content-type")
    declared, name = (_media_type(given[0]) if len(given) == 1 else ""), ""
    if declared == FORM:
        if not received.is_form:  # A page has opened it, to check its token.
            received.content_type = given[0]
            await bodies.unless_disconnected(open_form(received))
        declared, name = _media_type(received.content_type), received.file_name
    limit = min(services.max_upload_bytes, MAX_FILE_BYTES)
    content = await bodies.read_body(request, limit)
    options = read_query(request, ImportOptions, received.form)
    if not content:
        raise MalformedBody("The body is empty. Expected a file with a model; curl sends one with --data-binary @FILE.")
    model_format = await run_in_threadpool(_format_of, content, declared, name)
    if model_format.media_type == bodies.JSON and len(content) > services.max_json_bytes:
        raise BodyTooLarge(f"A model in JSON has at most {services.max_json_bytes} bytes. Send it in another format.")
    return _Received(content, options, model_format)


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _format_of(content: bytes, declared: str, name: str) -> Import:
    """Return the format of a content by its media type, otherwise by its name, otherwise by its first bytes."""
    if is_pickle(content):
        raise UnsupportedMediaType(REFUSED, [FieldError(REFUSED)])
    matching = [each for each in IMPORTS if each.matches(content)]
    for named in (_with_media_type(declared), _with_name(name)):
        if named and not matching:
            return named[0]  # Its reader raises an error with the fault.
        if both := [each for each in named if each in matching]:
            return both[0]
    if matching:
        return matching[0]
    known = ", ".join(f"{each.name} ({each.media_type})" for each in IMPORTS)
    message = f"The body is in none of the formats of models: {known}."
    raise UnsupportedMediaType(message, [FieldError(message, parameter="Content-Type")])


def _with_media_type(declared: str) -> Sequence[Import]:
    return [each for each in IMPORTS if each.media_type == declared]


def _with_name(name: str) -> Sequence[Import]:
    return [each for each in IMPORTS if name.lower().endswith(each.extensions)]


@dataclass(frozen=True, eq=False)
class _Import:
    """One request for an import."""

    services: Services
    memory: Reservation
    model: str
    upload: str | None
    received: _Received

    def publish(self) -> Version:
        from app.exchange.publishing import publishing_bytes, to_version  # It loads scipy.

        registry = self.services.registry
        if self.upload is not None and (published := registry.find(self.model, self.upload)) is not None:
            return self._same(published)
        content, options, model_format = self.received
        with self.memory.reserved(model_format.working_bytes(content)):
            names = {"features": options.features, "targets": options.targets}
            imported = model_format.read(content, {name: text for name, text in names.items() if text})
        with self.memory.reserved(publishing_bytes(imported)):
            origin = Imported(model_format.name, "coefficients", fingerprint=self._fingerprint)
            version = to_version(imported, self.model, origin, self.upload)
            return self._same(_publish(registry, version, options.promote))

    @property
    def _fingerprint(self) -> str:
        content, options, model_format = self.received
        digest = hashlib.sha256(f"{model_format.name} {options.model_dump_json()} ".encode())
        digest.update(content)
        return digest.hexdigest()

    def _same(self, published: Version) -> Version:
        """Return the version, after checking that it was published for this request. Raises KeyReused."""
        origin = published.card.imported
        if origin is None or origin.fingerprint != self._fingerprint:
            raise KeyReused("This Idempotency-Key was used before, for another request.")
        return published


def _publish(registry: ModelPublisher, version: Version, promote: str) -> Version:
    card, model = version.card, version.model
    if promote != "if_better":
        return registry.publish(card, model, promote=promote == "always")
    if registry.current_number(card.model) is None:
        with contextlib.suppress(ParentChanged):
            return registry.publish(card, model, promote=True, expected=None)
    return registry.publish(replace(card, warnings=(NOT_COMPARED, *card.warnings)), model)
