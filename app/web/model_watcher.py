"""Watch models for the requests that follow them.

Each followed model is read once a second for all its followers, and when others join them.
"""

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
from starlette.concurrency import run_in_threadpool

from app.errors import NotFound, Unavailable
from app.monitoring.comparison import summary_of
from app.monitoring.monitor import Monitor
from app.monitoring.outcomes.outcomes import Outcomes
from app.registry.base import ModelReader
from app.web.windows import DAY

MAX_FOLLOWERS = 1000  # Requests that follow models in one worker at a time.
POLL_SECONDS = 1.0
# Time after which the last event is yielded again, so that its follower checks its key.
UNCHANGED_SECONDS = 2.0
DRIFT_SECONDS, OUTCOME_SECONDS = DAY, 7 * DAY  # Windows of the events.
MAX_VERSIONS = 50  # Newest versions in an event.
MAX_COLUMNS = 50  # Columns, categories and targets in an event.
KINDS = ("versions", "drift", "outcomes")

_EVENT_ID = re.compile(r"(?:[0-9a-f]{8}|-)(?:\.(?:[0-9a-f]{8}|-)){2}")
_NOTHING = "-"  # in an event id: no event of this kind was sent


class ModelEvent(NamedTuple):
    """An event, and the id that says which events of all kinds a follower has."""

    kind: str
    event_id: str
    text: str


class _State(NamedTuple):
    tag: str
    text: str


@dataclass(eq=False)
class _Followed:
    """A model that at least one request follows."""

    followers: int = 0
    states: dict[str, _State] = field(default_factory=dict)  # by kind
    over: bool = False  # True if the model is gone, or the service stops
    changed: asyncio.Event = field(default_factory=asyncio.Event)  # replaced at each notification
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)  # so that no earlier reading replaces a later one
    begun: int = 0  # readings

    def notify(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class ModelWatcher:
    """Watches the models that requests of one worker follow, in its event loop."""

    def __init__(self, registry: ModelReader, monitor: Monitor, outcomes: Outcomes, stopping: asyncio.Event) -> None:
        self._registry, self._monitor, self._outcomes = registry, monitor, outcomes
        self._stopping = stopping
        self._followed: dict[str, _Followed] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots_taken = 0

    @contextlib.contextmanager
    def acquire_slot(self) -> Iterator[None]:
        """Count a follower for the block. Raises Unavailable if there are MAX_FOLLOWERS already."""
        if self._slots_taken >= MAX_FOLLOWERS:
            raise Unavailable(f"{MAX_FOLLOWERS} requests already follow models in this worker. Try again later.")
        self._slots_taken += 1
        try:
            yield
        finally:
            self._slots_taken -= 1

    async def watch(self, model: str, last_event_id: str | None = None) -> AsyncGenerator[ModelEvent | None]:
        """Yield an event of each kind, again whenever it changes, and None after UNCHANGED_SECONDS without any.

        Events that a client with this last event id has are left out. Ends if the model is deleted or the service
        stops.
        """
        known = last_event_id if last_event_id and _EVENT_ID.fullmatch(last_event_id) else ".".join([_NOTHING] * 3)
        sent = dict(zip(KINDS, known.split("."), strict=True))
        followed = self._followed.get(model)
        is_joining = followed is not None and not followed.over
        if followed is None or followed.over:
            followed = self._followed[model] = _Followed()
            task = asyncio.create_task(self._poll(model, followed))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        followed.followers += 1
        try:
            if is_joining:  # What is known may be a second old, and older than the page that follows.
                with contextlib.suppress(NotFound):
                    await self._refresh(model, followed)
            while True:
                changed, is_new = followed.changed, False
                for kind in KINDS:
                    state = followed.states.get(kind)
                    if state is not None and state.tag != sent[kind]:
                        sent[kind], is_new = state.tag, True
                        yield ModelEvent(kind, ".".join(sent.values()), state.text)
                if followed.over:
                    return
                if not is_new:
                    yield None
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), UNCHANGED_SECONDS)
        finally:
            followed.followers -= 1

    async def _poll(self, model: str, followed: _Followed) -> None:
        try:
            while followed.followers and not self._stopping.is_set():
                await self._refresh(model, followed)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), POLL_SECONDS)
        except NotFound:
            pass
        finally:
            followed.over = True
            followed.notify()
            if self._followed.get(model) is followed:
                del self._followed[model]

    async def _refresh(self, model: str, followed: _Followed) -> None:
        """Wait for a reading of the model that begins after this call. Raises NotFound."""
        begun = followed.begun
        async with followed.reading:
            if followed.begun > begun:  # Another call made it, so that many new followers do not cost many readings.
                return
            followed.begun += 1
            states = await run_in_threadpool(self._read, model)
            changed = {kind: state for kind, state in states.items() if state != followed.states.get(kind)}
            if changed:
                followed.states |= changed
                followed.notify()

    def _read(self, model: str) -> dict[str, _State]:
        """Return what is known of a model now, by kind, without what cannot be read now. Raises NotFound."""
        states = {}
        parts: dict[str, Callable[[str], Any]] = {
            "versions": self._versions,
            "drift": self._drift,
            "outcomes": self._rolling,
        }
        for kind, read in parts.items():
            with contextlib.suppress(Unavailable):
                if (content := read(model)) is not None:
                    text = orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS).decode()
                    states[kind] = _State(hashlib.sha256(text.encode()).hexdigest()[:8], text)
        return states

    def _versions(self, model: str) -> dict[str, Any]:
        versions = self._registry.versions(model)
        return {"model": model, "current": self._registry.served_number(model), "versions": versions[-MAX_VERSIONS:]}

    def _drift(self, model: str) -> dict[str, Any] | None:
        if self._registry.served_number(model) is None:
            return None
        found = self._monitor.drift(self._registry.current(model), DRIFT_SECONDS)
        traffic = self._monitor.traffic(model)
        counts = {"requests": traffic.requests, "failed": traffic.failed, "rows": traffic.rows}
        return {**summary_of(found, MAX_COLUMNS), "traffic": counts}

    def _rolling(self, model: str) -> dict[str, Any]:
        errors = self._outcomes.rolling(model, OUTCOME_SECONDS)
        return {
            "model": model,
            "window_seconds": OUTCOME_SECONDS,
            "versions": {
                str(version): {
                    "matched": errors[version].matched,
                    "targets": dict(list(errors[version].targets.items())[:MAX_COLUMNS]),
                }
                for version in sorted(errors)[-MAX_VERSIONS:]
            },
        }
