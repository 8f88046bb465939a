"""The log has one JSON object per line, from every source."""

import json
import logging
import subprocess
import sys

import pytest
from sqlalchemy.exc import OperationalError

from app.jobs.dbos_database import driver_message
from app.logs import RateLimitFilter

IN_MAIN = "raise OSError('no room\\nleft')"
IN_A_THREAD = "import threading; thread = threading.Thread(target=open, args=['/missing']); thread.start()"


@pytest.mark.parametrize(("program", "expected"), [(IN_MAIN, "no room\nleft"), (IN_A_THREAD, "/missing")])
def test_uncaught_exception_is_one_log_line(program: str, expected: str) -> None:
    code = f"from app import logs; logs.configure(); {program}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    (line,) = done.stderr.splitlines()
    record = json.loads(line)
    assert (record["level"], record["message"]) == ("CRITICAL", "uncaught")
    assert expected in record["exc_info"]
    assert "Traceback" in record["exc_info"]


def test_reason_of_a_database_error_has_neither_statement_nor_data() -> None:
    error = OperationalError("INSERT INTO jobs VALUES (?)", ("somebody's rows",), OSError("disk is full"))
    assert driver_message(error) == "disk is full"


def test_repeated_database_errors_are_logged_once_without_statement_and_data(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limited = logging.getLogger("limited")
    limited.addFilter(RateLimitFilter())
    error = OperationalError("INSERT INTO jobs VALUES (?)", ("somebody's rows",), OSError("disk is full"))
    for _ in range(100):
        limited.warning(f"Trying again: {error}")  # as DBOS logs it
        try:
            raise ValueError("not recorded") from error
        except ValueError:
            limited.exception("Not recorded")
    try:
        raise KeyError("a fault")
    except KeyError:
        limited.exception("Fault")

    assert [record.getMessage() for record in caplog.records] == [
        "Trying again: (builtins.OSError) disk is full",
        "Not recorded",
        "Fault",
    ]
    assert "INSERT" not in caplog.text
    assert "somebody" not in caplog.text
    assert "Traceback" in caplog.text.partition("Fault")[2]  # An error without SQL keeps its traceback.


def test_rate_limit_applies_to_dbos_and_to_the_queue() -> None:
    code = "from app import logs; logs.configure(); import logging, sys\n"
    code += "for name in sys.argv[1:] * 9: logging.getLogger(name).error('x')"
    command = [sys.executable, "-c", code, "dbos", "app.jobs.dbos_store"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    # Both come from one place of the code, but each has its own count.
    assert sorted(json.loads(line)["logger"] for line in ended.stderr.splitlines()) == ["app.jobs.dbos_store", "dbos"]
