import os
import subprocess
import sys
from pathlib import Path

import pytest
from service import ROOT

from app.settings import load


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


def test_what_kubernetes_tells_its_pods_is_no_setting_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "tcp://10.0.0.1:8000"
    given = {"SERVICE_HOST": "10.0.0.1", "SERVICE_PORT": "8000", "SERVICE_PORT_HTTP": "8000", "PORT": address}
    for name, value in {**given, "PORT_8000_TCP": address, "PORT_8000_TCP_PROTO": "tcp"}.items():
        monkeypatch.setenv(f"LINSERVE_{name}", value)
    assert load().default_model == "crop-yield"
