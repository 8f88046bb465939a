"""Log lines: one JSON object each, on standard error, with the request or job they belong to."""

import json
import logging
import logging.config
import re
import sys
import threading
import time
import traceback
from contextvars import ContextVar
from importlib.resources import files
from types import TracebackType

from pythonjsonlogger.json import JsonFormatter

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
job_id: ContextVar[str | None] = ContextVar("job_id", default=None)

LOG_INTERVAL_SECONDS = 10.0  # between two lines of one kind, of those that tell what the database said

# How SQLAlchemy ends its messages: with the statement, all that was to be stored by it, and a link.
_STATEMENT = re.compile(r"\s*(\[SQL: |\(Background on this error).*", re.DOTALL)

_log = logging.getLogger(__name__)


class RateLimitFilter(logging.Filter):
    """Of lines that come from one place of the code for one kind of error, one in so many seconds, without statements.

    A database that is out of reach would otherwise fill the log, with every request and every look at the queue.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[tuple[str, str, int, type[BaseException] | None], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind, error, _ = record.exc_info or (None, None, None)
        now = time.monotonic()
        place = (record.name, record.pathname, record.lineno, kind)
        if now - self._told.get(place, -LOG_INTERVAL_SECONDS) < LOG_INTERVAL_SECONDS:
            return False
        self._told[place] = now
        record.msg, record.args = _STATEMENT.sub("", record.getMessage()), ()
        if error is not None and _STATEMENT.search("".join(traceback.format_exception(error))):
            record.reason = _STATEMENT.sub("", str(error))
            record.exc_info = None
        return True


class JsonLines(JsonFormatter):
    """Time, level, logger and message, then whatever the line has besides."""

    def __init__(self) -> None:
        super().__init__(
            "{levelname}{name}{message}",
            style="{",
            timestamp="time",  # RFC 3339, UTC
            rename_fields={"levelname": "level", "name": "logger"},
        )

    def process_log_record(self, log_data: dict[str, object]) -> dict[str, object]:
        if (current := request_id.get()) is not None:
            log_data.setdefault("request_id", current)
        if (current := job_id.get()) is not None:
            log_data.setdefault("job", current)
        log_data.pop("color_message", None)  # uvicorn's, for terminals
        return log_data


def configure() -> None:
    """Apply `logging.json`, the same file that uvicorn takes with --log-config.

    Warnings, and what nobody caught in any thread, are lines like others.
    """
    logging.captureWarnings(capture=True)
    logging.config.dictConfig(json.loads(files("app").joinpath("logging.json").read_text()))
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    _log.critical("uncaught", exc_info=(kind, error or kind(), trace))
