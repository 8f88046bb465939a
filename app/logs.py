"""Log lines: one JSON object each, on standard error, with the request or job they belong to."""

import json
import logging
import logging.config
import sys
import threading
from contextvars import ContextVar
from importlib.resources import files
from types import TracebackType

from pythonjsonlogger.json import JsonFormatter

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
job_id: ContextVar[str | None] = ContextVar("job_id", default=None)

_log = logging.getLogger(__name__)


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
