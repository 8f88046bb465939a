"""Retry requests after lost connections and after temporary errors of the service."""

import email.utils
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from linserve._steps import Answer, Call, Pause, Plan
from linserve.errors import ConnectionFailed, ServiceError, error_from_problem, problem_from_json

# Too many jobs, a gateway without a service behind it, temporarily unavailable, no space at the moment.
_TEMPORARY = frozenset({429, 502, 503, 504, 507})
# Statuses of a gateway that lost the connection to the service: the request may already have taken effect.
_UNCERTAIN = frozenset({502, 504})
_CONFLICT, _NOT_FOUND, _OK, _REDIRECT = 409, 404, 200, 300


@dataclass(frozen=True)
class Retries:
    """At most `count` further attempts, after random pauses whose longest doubles each time (full jitter)."""

    count: int = 4
    base: float = 0.5  # Longest pause before the first further attempt, in seconds.
    longest: float = 20.0  # Longest pause that is drawn, in seconds.
    most: float = 60.0  # Longest accepted Retry-After, in seconds. A longer one raises the error at once.
    generator: random.Random = field(default_factory=random.Random, repr=False, compare=False)

    def pause(self, attempt: int, retry_after: float | None = None) -> float:
        """Return the seconds to wait before a further attempt, which is the first if `attempt` is 1."""
        drawn = self.generator.uniform(0.0, min(self.longest, self.base * 2.0 ** (attempt - 1)))
        return drawn if retry_after is None else retry_after + min(drawn, self.base)


def send(call: Call, retries: Retries) -> Plan[Answer]:
    """Yield the call until it succeeds, and return its answer. Raises ServiceError or ConnectionFailed."""
    attempt = 0
    while True:
        attempt += 1
        try:
            answer = yield call
        except ConnectionFailed as error:
            failure: ConnectionFailed | ServiceError = error
            # A large body is not sent again because checking it takes longer than the client waits.
            again = (call.repeatable or not error.sent) and not (error.timed_out and call.is_large)
            after = None
        else:
            assert answer is not None
            if _OK <= answer.status < _REDIRECT or (attempt > 1 and _is_deleted(call, answer)):
                if call.proof is not None and call.proof not in answer.headers:
                    raise answer.foreign()
                return answer
            failure = error_of(answer)
            again = _may_send_again(call, answer, attempt)
            after = failure.retry_after
        if not (again and _can_send_again(call)) or attempt > retries.count or (after or 0.0) > retries.most:
            raise failure
        yield Pause(retries.pause(attempt, after))


def _is_deleted(call: Call, answer: Answer) -> bool:
    """Return True if a 404 shows that an earlier attempt has deleted the resource."""
    return call.method == "DELETE" and answer.status == _NOT_FOUND


def _may_send_again(call: Call, answer: Answer, attempt: int) -> bool:
    if answer.status == _CONFLICT and attempt > 1 and "idempotency-key" in call.headers:
        return True  # The service is still receiving an earlier attempt whose connection broke.
    if answer.status in _UNCERTAIN:
        return call.repeatable
    return answer.status in _TEMPORARY


def _can_send_again(call: Call) -> bool:
    return (call.body is None or call.body.replayable) and (call.sink is None or call.sink.restartable)


def error_of(answer: Answer) -> ServiceError:
    """Return the error for an answer that is not a success."""
    after = _retry_after(answer.headers)
    if answer.headers.get("content-type", "").partition(";")[0] == "application/problem+json":
        try:
            return error_from_problem(problem_from_json(json.loads(answer.content)), after)
        except (ValueError, TypeError, AttributeError):
            pass
    return error_from_problem(answer.foreign().problem, after)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that Retry-After asks for, which may be a number or a date."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None
