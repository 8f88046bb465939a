"""Recorded evaluations: the newest of each model, as blobs in the store. They hold metrics, and no rows."""

import secrets
import threading
from datetime import UTC, datetime
from typing import Any

import msgspec

from app.errors import InvalidInput
from app.storage.store import BlobNotFound, Store

MAX_EVALUATIONS = 20  # Evaluations of a model that are kept.
MAX_BYTES = 1 << 20  # Bytes of one evaluation.
MAX_CACHED = 64  # Evaluations that are kept in memory.
MAX_CACHED_BYTES = 1 << 16  # Bytes of an evaluation that is kept in memory.

_PREFIX = "monitoring/evaluations"


class _Metrics(msgspec.Struct):
    rows: int
    rmse: float | None
    mae: float | None
    bias: float | None
    r2: float | None
    max_absolute_error: float | None
    interval_rows: int
    interval_coverage: float | None
    mean_interval_width: float | None


class _Decile(msgspec.Struct):
    decile: int
    rows: int
    mean_predicted: float | None
    mean_observed: float | None


class _LeftOut(msgspec.Struct):
    rows: int
    gaps: dict[str, int]
    unseen: dict[str, int]
    zero_weight: int


class _Segment(msgspec.Struct):
    value: str | None
    targets: dict[str, _Metrics]


class _Other(msgspec.Struct):
    values: int
    more: bool
    targets: dict[str, _Metrics]


class _Version(msgspec.Struct):
    version: int
    rows: int
    left_out: _LeftOut
    targets: dict[str, _Metrics]
    calibration: dict[str, list[_Decile]]
    calibration_is_exact: bool
    segments: list[_Segment] | None
    other: _Other | None
    unavailable: dict[str, str]


class _Evaluation(msgspec.Struct):
    """The form of a blob. One of another form was altered, or another release wrote it."""

    id: str
    created_at: str
    model: str
    by: str | None
    level: float
    weight: str | None
    versions: list[_Version]


_form = msgspec.json.Decoder(_Evaluation)


class EvaluationStore:
    """The recorded evaluations of all models. Processes on several machines may share the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cached: dict[str, bytes] = {}  # by key; an evaluation never changes
        self._lock = threading.Lock()

    def add(self, model: str, evaluation: dict[str, Any]) -> dict[str, Any]:
        """Store an evaluation, and delete the oldest above MAX_EVALUATIONS. Return it with its id and time.

        Raises InvalidInput if it is too long. Raises StoreUnavailable.
        """
        now = datetime.now(UTC)
        name = f"{now:%Y%m%dT%H%M%S}.{now.microsecond:06d}Z-{secrets.token_hex(4)}"
        recorded = {"id": name, "created_at": now.isoformat().replace("+00:00", "Z"), **evaluation}
        content = msgspec.json.encode(recorded)
        if len(content) > MAX_BYTES:
            message = (
                f"The evaluation has {len(content)} bytes, and at most {MAX_BYTES} are recorded. Evaluate fewer "
                "versions at once, or without `by`."
            )
            raise InvalidInput.of_parameter("record", message)
        self._store.put(f"{_PREFIX}/{model}/{name}.json", content)
        for key in self._keys(model)[:-MAX_EVALUATIONS]:
            self._store.delete(key)
        return recorded

    def newest(self, model: str) -> list[dict[str, Any]]:
        """Return the recorded evaluations, the newest first, except altered ones. Raises StoreUnavailable."""
        evaluations = []
        for key in reversed(self._keys(model)[-MAX_EVALUATIONS:]):
            try:
                evaluations.append(msgspec.to_builtins(_form.decode(self._content(key))))
            except (BlobNotFound, msgspec.DecodeError):
                continue  # deleted meanwhile by another process, or altered
        return evaluations

    def delete(self, model: str) -> None:
        """Delete the evaluations of a model. Raises StoreUnavailable."""
        for key in self._keys(model):
            self._store.delete(key)

    def _content(self, key: str) -> bytes:
        content = self._cached.get(key) or self._store.get(key).content
        if len(content) <= MAX_CACHED_BYTES:
            with self._lock:
                if len(self._cached) >= MAX_CACHED:
                    self._cached.clear()
                self._cached[key] = content
        return content

    def _keys(self, model: str) -> list[str]:
        return [blob.key for blob in self._store.list_blobs(f"{_PREFIX}/{model}/")]
