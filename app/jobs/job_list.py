"""The filter of a list of jobs, and the token of its next page."""

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from app.errors import InvalidInput
from app.jobs.job import Job, Status

PAGE = 50
MAX_TOKEN = 500


@dataclass(frozen=True)
class JobFilter:
    """Conditions that all jobs of a list meet."""

    status: Status | None = None
    model: str | None = None
    since: Annotated[datetime, Meta(tz=True)] | None = None  # recorded then or later


@dataclass(frozen=True)
class Page:
    """Some jobs, newest first, and the token of the next page."""

    jobs: list[Job]
    next: str | None


class Position(msgspec.Struct, array_like=True, frozen=True):
    """The beginning of a page. It has a time, so that jobs recorded later do not shift the pages."""

    offset: Annotated[int, Meta(ge=0, lt=2**31)]
    end: Annotated[datetime, Meta(tz=True)]
    filter: JobFilter = JobFilter()

    def token(self, more: int) -> str:
        """Return the token of the page that begins after `more` jobs."""
        following = Position(self.offset + more, self.end, self.filter)
        return base64.urlsafe_b64encode(msgspec.json.encode(following)).decode()


def position(token: str | None, wanted: JobFilter) -> Position:
    """Return the position at which the token's page begins; without a token, the first page.

    Raises InvalidInput for a token that no page gave, and for one of a list with another filter.
    """
    if token is None:
        return Position(0, datetime.now(UTC), wanted)
    try:
        found = msgspec.json.decode(base64.urlsafe_b64decode(token[:MAX_TOKEN].encode()), type=Position)
        found = Position(found.offset, found.end.astimezone(UTC), found.filter)
    except (msgspec.MsgspecError, ValueError, OverflowError):
        raise InvalidInput.of_parameter("next", "The token is invalid. Send the `next` of the previous page.") from None
    if wanted not in (JobFilter(), found.filter):
        raise InvalidInput.of_parameter(
            "next", "The token belongs to a list with another filter. Repeat the parameters of the previous page."
        )
    return found
