"""The log: one JSON object per line on standard error, with the id of the request or job."""

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

# Seconds between two equal records of the loggers that have a RateLimitFilter.
LOG_INTERVAL_SECONDS = 10.0

# The end of SQLAlchemy's messages: the statement with its parameters, and a link.
_STATEMENT = re.compile(r"\s*(\[SQL: |\(Background on this error).*", re.DOTALL)

_log = logging.getLogger(__name__)


class RateLimitFilter(logging.Filter):
    """Limit records to one per call site and exception type every LOG_INTERVAL_SECONDS, and strip SQL.

    Otherwise an unreachable database would fill the log, with every request and every poll of the queue.
    """

    def __init__(self) -> None:
        super().__init__()
        self._logged_at: dict[tuple[str, str, int, type[BaseException] | None], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        error_type, error, _ = record.exc_info or (None, None, None)
        now = time.monotonic()
        source = (record.name, record.pathname, record.lineno, error_type)
        if now - self._logged_at.get(source, -LOG_INTERVAL_SECONDS) < LOG_INTERVAL_SECONDS:
            return False
        self._logged_at[source] = now
        record.msg, record.args = _STATEMENT.sub("", record.getMessage()), ()
        if error is not None and _STATEMENT.search("".join(traceback.format_exception(error))):
            record.reason = _STATEMENT.sub("", str(error))
            record.exc_info = None
        return True


class JsonLines(JsonFormatter):
    """Write time, level, logger, message, and the extra fields of a record."""

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
    """Apply `logging.json`, the file that uvicorn also reads with --log-config.

    Warnings and uncaught exceptions of all threads are logged too.
    """
    logging.captureWarnings(capture=True)
    logging.config.dictConfig(json.loads(files("app").joinpath("logging.json").read_text()))
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _uncaught(error_type: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    _log.critical("uncaught", exc_info=(error_type, error or error_type(), trace))
