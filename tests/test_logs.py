"""What goes to the log is one JSON object a line, whoever wrote it."""

import json
import subprocess
import sys

import pytest
from sqlalchemy.exc import OperationalError

from app.jobs.database import reason

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
    assert reason(error) == "disk is full"
