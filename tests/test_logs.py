"""What goes to the log is one JSON object a line, whoever wrote it."""

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


@pytest.mark.parametrize(("program", "told"), [(IN_MAIN, "no room\nleft"), (IN_A_THREAD, "/missing")])
def test_what_nobody_caught_is_one_line_of_the_log(program: str, told: str) -> None:
    code = f"from app import logs; logs.configure(); {program}"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    (line,) = ended.stderr.splitlines()
    record = json.loads(line)
    assert (record["level"], record["message"]) == ("CRITICAL", "uncaught")
    assert told in record["exc_info"]
    assert "Traceback" in record["exc_info"]


def test_the_log_has_what_the_database_says_and_neither_statement_nor_data() -> None:
    error = OperationalError("INSERT INTO jobs VALUES (?)", ("somebody's rows",), OSError("disk is full"))
    assert driver_message(error) == "disk is full"


def test_what_the_database_says_again_and_again_is_told_once_and_without_statement_or_data(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = logging.getLogger("told")
    told.addFilter(RateLimitFilter())
    error = OperationalError("INSERT INTO jobs VALUES (?)", ("somebody's rows",), OSError("disk is full"))
    for _ in range(100):
        told.warning(f"Trying again: {error}")  # as DBOS writes it
        try:
            raise ValueError("not recorded") from error
        except ValueError:
            told.exception("Not recorded")
    try:
        raise KeyError("a fault")
    except KeyError:
        told.exception("Fault")

    assert [record.getMessage() for record in caplog.records] == [
        "Trying again: (builtins.OSError) disk is full",
        "Not recorded",
        "Fault",
    ]
    assert "INSERT" not in caplog.text
    assert "somebody" not in caplog.text
    assert "Traceback" in caplog.text.partition("Fault")[2]  # of what has no statement in it


def test_both_processes_tell_of_the_database_sparingly() -> None:
    code = "from app import logs; logs.configure(); import logging, sys\n"
    code += "for name in sys.argv[1:] * 9: logging.getLogger(name).error('x')"
    command = [sys.executable, "-c", code, "dbos", "app.jobs.dbos_store"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    # Both come from one place of the code, but each has its own count.
    assert sorted(json.loads(line)["logger"] for line in ended.stderr.splitlines()) == ["app.jobs.dbos_store", "dbos"]
