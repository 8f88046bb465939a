"""Plans of trainings and of their jobs."""

import contextlib
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from linserve._bodies import OCTETS, FormBody, Source, body_of_source, is_source, json_body, with_options
from linserve._options import given, in_json, in_query
from linserve._retries import Retries, send
from linserve._sinks import EventSink
from linserve._steps import Body, Call, Pause, Plan, path_of
from linserve.errors import ConnectionFailed, QueueFull, Unavailable, WaitTimeout

_SCHEMES = ("s3://", "gs://", "az://", "file:///")
# Read timeout of the event stream, in seconds, after which the job is polled. The service sends a comment every 15 s.
_SILENCE = 30.0
_POLL_SECONDS = 1.0
_JOB = ("id", "status")  # members of every job
_MARGIN = 30.0  # Time for the response after the wait for a job, in seconds.
_PATIENCE = 10  # Retries of a read while waiting for a job, because the service may be restarting.


@dataclass(frozen=True)
class JobRequest:
    """The headers of a request for a job. All attempts send the same key, so the service makes one job."""

    wait: float = 0.0  # seconds
    key: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        key = {"idempotency-key": self.key or uuid.uuid4().hex}
        return key | {"prefer": f"wait={self.wait:g}"} if self.wait else key

    @property
    def read_timeout(self) -> float | None:
        return self.wait + _MARGIN if self.wait else None


def train(
    retries: Retries,
    rows: Any,
    options: Mapping[str, Any],
    format_name: str | None = None,
    request: JobRequest | None = None,
) -> Plan[dict[str, Any]]:
    """Send training rows, and return the job. Without a request for a job, return the inspection."""
    options = given(options)
    if isinstance(rows, str) and rows.startswith(_SCHEMES):
        body: Body = json_body({"source": rows, **in_json(options)})
        params: Mapping[str, str] = {}
    else:
        body, params = with_options(_body_of_rows(rows, format_name), options)
    headers, read_timeout = ({}, None) if request is None else (request.headers, request.read_timeout)
    path = "/inspect" if request is None else "/train"
    call = Call("POST", path, params, headers, body, read_timeout=read_timeout)
    answer = yield from send(call, retries)
    job: dict[str, Any] = answer.json("columns") if request is None else answer.json(*_JOB)
    return job


def _body_of_rows(rows: Any, format_name: str | None) -> Body:
    """Return rows with names as a body. Raises TypeError for rows without names."""
    if is_source(rows):
        return body_of_source(rows, format_name)
    if isinstance(rows, Sequence) and all(isinstance(row, Mapping) for row in rows):
        return json_body(rows)
    from linserve._frames import Frame, is_frame  # narwhals takes 40 ms.

    if is_frame(rows):
        return Frame(rows).body()
    raise TypeError(
        "Training rows need names of their columns. Give a frame, a list of dictionaries, a path, bytes or an open "
        f"file; this is {type(rows).__name__}."
    )


def merge(
    retries: Retries,
    model: str,
    files: Sequence[Source],
    options: Mapping[str, Any],
    request: JobRequest,
) -> Plan[dict[str, Any]]:
    """Send version files to merge, and return the job."""
    bodies = tuple(replace_type(body_of_source(file, fallback=OCTETS)) for file in files)
    if not bodies:
        raise ValueError("There are no files to merge. Give one or several.")
    body: Body = bodies[0] if len(bodies) == 1 else FormBody(bodies)
    params = in_query(given(options)) or {}
    call = Call(
        "POST", path_of("models", model, "merge"), params, request.headers, body, read_timeout=request.read_timeout
    )
    answer = yield from send(call, retries)
    job: dict[str, Any] = answer.json(*_JOB)
    return job


def replace_type(body: Any) -> Body:
    """Return the body with the media type of any file, by whose first bytes the service knows its format."""
    made: Body = replace(body, media_type=OCTETS)
    return made


def job(retries: Retries, job_id: str) -> Plan[dict[str, Any]]:
    answer = yield from send(Call("GET", path_of("jobs", job_id)), retries)
    found: dict[str, Any] = answer.json(*_JOB)
    return found


def jobs(retries: Retries, filters: Mapping[str, Any], limit: int) -> Plan[list[dict[str, Any]]]:
    """Return the newest jobs, at most `limit`."""
    found: list[dict[str, Any]] = []
    params = in_query(given(filters)) or {}
    token: str | None = None
    while len(found) < limit:
        page = {"limit": str(min(limit - len(found), 200))} | ({} if token is None else {"next": token})
        answer = (yield from send(Call("GET", "/jobs", {**params, **page}), retries)).json("items", "next")
        found += answer["items"]
        token = answer["next"]
        if token is None:
            break
    return found


def cancel(retries: Retries, job_id: str) -> Plan[dict[str, Any]]:
    answer = yield from send(Call("POST", path_of("jobs", job_id, "cancel")), retries)
    cancelled: dict[str, Any] = answer.json(*_JOB)
    return cancelled


def follow(
    retries: Retries,
    first: Mapping[str, Any],
    on_change: Callable[[dict[str, Any]], None],
    timeout: float | None,
    clock: Callable[[], float] = time.monotonic,
) -> Plan[None]:
    """Pass on each change of a job until it has ended. Raises WaitTimeout after `timeout` seconds.

    The changes come as server-sent events. If their connection breaks, the job is read, and then followed again.
    """
    following = _Following(dict(first), on_change, None if timeout is None else clock() + timeout, clock)
    sink = EventSink(following.take)
    path = path_of("jobs", str(first["id"]))
    patient = replace(retries, count=max(retries.count, _PATIENCE) if retries.count else 0)
    while not following.ended:
        silence = following.begin_silence()
        headers = {"accept": "text/event-stream"} | ({"last-event-id": sink.last_id} if sink.last_id else {})
        call = Call("GET", f"{path}/events", headers=headers, sink=sink, read_timeout=silence)
        with contextlib.suppress(ConnectionFailed, QueueFull, Unavailable):
            yield from send(call, replace(retries, count=0))
        if not following.changed:  # The job has ended, the service restarts, or a proxy holds the events back.
            following.check_time()
            following.take((yield from job(patient, str(first["id"]))))
            if not following.ended:
                yield Pause(min(_POLL_SECONDS, following.left))


class _Following:
    """The state of a job that is followed."""

    def __init__(
        self,
        last: dict[str, Any],
        on_change: Callable[[dict[str, Any]], None],
        deadline: float | None,
        clock: Callable[[], float],
    ) -> None:
        self._last = last
        self._on_change = on_change
        self._deadline = deadline
        self._clock = clock
        self._silence = _SILENCE
        self.changed = False  # in the present stream of events

    @property
    def ended(self) -> bool:
        return self._last["finished_at"] is not None

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return _SILENCE if self._deadline is None else max(self._deadline - self._clock(), 0.0)

    def check_time(self) -> None:
        """Raise WaitTimeout if the time is over."""
        if self._deadline is not None and self._clock() >= self._deadline:
            raise WaitTimeout(f"Job {self._last['id']} is still {self._last['status']}. It continues.")

    def begin_silence(self) -> float:
        """Return the seconds to wait for the next event. Raises WaitTimeout."""
        self.check_time()
        self._silence = min(_SILENCE, self.left)
        self.changed = False
        return max(self._silence, 0.01)

    def take(self, job: dict[str, Any]) -> bool:
        """Pass the job on if it has changed. Return True if the stream is to be closed."""
        if job != self._last:
            self._last = job
            self.changed = True
            self._on_change(job)
        return self.ended or self.left < self._silence
