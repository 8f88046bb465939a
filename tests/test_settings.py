import os
import subprocess
import sys
from pathlib import Path

import pytest
from service import ROOT


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("LINSERVE_MAX_JSON_BYTES", "abc", "LINSERVE_MAX_JSON_BYTES: Input should be a valid integer"),
        ("LINSERVE_MAX_JSON_BYTE", "5", "LINSERVE_MAX_JSON_BYTE: there is no such setting"),
        ("LINSERVE_DEFAULT_MODEL", "../x", "LINSERVE_DEFAULT_MODEL"),
        ("LINSERVE_STATE", "/proc/nowhere", "/proc/nowhere"),
    ],
)
def test_a_setting_that_cannot_be_keeps_the_service_from_starting_and_says_why(
    tmp_path: Path, name: str, value: str, says: str
) -> None:
    environment = os.environ | {"LINSERVE_STATE": str(tmp_path), name: value}
    command = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", "0"]

    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=30)

    assert done.returncode != 0
    assert says in next(line for line in done.stderr.splitlines() if "not started" in line)
