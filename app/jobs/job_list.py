"""The filter of a list of jobs, and the token of its next page."""

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from app.errors import InvalidInput
from app.jobs.job import Job, Status

PAGE = 50  # Jobs on a page, unless the caller gives a limit.
MAX_TOKEN = 500  # Characters of a token that are decoded.


@dataclass(frozen=True)
class JobFilter:
    """Conditions that all jobs of a list meet."""

    status: Status | None = None
    model: str | None = None
    since: Annotated[datetime, Meta(tz=True)] | None = None  # recorded at this time or later


@dataclass(frozen=True)
class Page:
    """A page of jobs, newest first, and the token of the next page."""

    jobs: list[Job]
    next: str | None


class Position(msgspec.Struct, array_like=True, frozen=True):
    """The beginning of a page. Its time keeps jobs that are recorded later from shifting the pages."""

    offset: Annotated[int, Meta(ge=0, lt=2**31)]
    end: Annotated[datetime, Meta(tz=True)]
    filter: JobFilter = JobFilter()

    def token(self, count: int) -> str:
        """Return the token of the page that begins `count` jobs later."""
        following = Position(self.offset + count, self.end, self.filter)
        return base64.urlsafe_b64encode(msgspec.json.encode(following)).decode()


def decode_token(token: str | None, conditions: JobFilter) -> Position:
    """Return the position at which the token's page begins, or that of the first page.

    Raises InvalidInput if the token is invalid, or belongs to a list with another filter.
    """
    if token is None:
        return Position(0, datetime.now(UTC), conditions)
    try:
        position = msgspec.json.decode(base64.urlsafe_b64decode(token[:MAX_TOKEN].encode()), type=Position)
        position = Position(position.offset, position.end.astimezone(UTC), position.filter)
    except (msgspec.MsgspecError, ValueError, OverflowError):
        raise InvalidInput.of_parameter("next", "The token is invalid. Send the `next` of the previous page.") from None
    if conditions not in (JobFilter(), position.filter):
        raise InvalidInput.of_parameter(
            "next", "The token belongs to a list with another filter. Repeat the parameters of the previous page."
        )
    return position
