"""The private names of other packages on which the service depends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from service import ROOT

from app.private_names import PRIVATE_NAMES, check_private_names

# Removes a name as a new release would, then runs the module that the last argument names.
WITHOUT = """
import importlib, runpy, sys
_, place, name, module = sys.argv
holder, _, owner = place.partition(":")
holder = importlib.import_module(holder)
delattr(getattr(holder, owner) if owner else holder, name)
sys.argv = [module]
runpy.run_module(module, run_name="__main__")
"""


@pytest.mark.parametrize("distribution", PRIVATE_NAMES)
def test_the_installed_releases_have_the_names(distribution: str) -> None:
    check_private_names(distribution)


@pytest.mark.parametrize("distribution", PRIVATE_NAMES)
def test_a_missing_name_is_an_error_that_names_it_and_the_release(
    monkeypatch: pytest.MonkeyPatch, distribution: str
) -> None:
    place, names = next(iter(PRIVATE_NAMES[distribution].items()))
    gone = {place: f"{names} gone", "gone_module": "one", f"{place.partition(':')[0]}:GoneClass": "other"}
    monkeypatch.setitem(PRIVATE_NAMES, distribution, gone)

    with pytest.raises(ImportError) as error:
        check_private_names(distribution)

    assert f"lacks {place}.gone, gone_module.one, " in str(error.value)
    assert ":GoneClass.other, which this service uses." in str(error.value)
    assert str(error.value).startswith(f"{distribution} ")


@pytest.mark.parametrize(
    ("place", "name", "module"),
    [
        ("uvicorn.protocols.http.httptools_impl:HttpToolsProtocol", "_unset_keepalive_if_required", "app.serve"),
        ("dbos._queue", "queue_worker_thread", "app.trainer"),
    ],
)
def test_a_process_whose_library_lacks_a_name_does_not_start_and_logs_one_line(
    tmp_path: Path, place: str, name: str, module: str
) -> None:
    settings = {"LINSERVE_STATE_DIR": str(tmp_path), "UVICORN_PORT": "0", "UVICORN_WORKERS": "2"}
    command = [sys.executable, "-c", WITHOUT, place, name, module]

    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True, check=False, timeout=120
    )

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    record = json.loads(line)
    assert (record["level"], record["message"]) == ("CRITICAL", "not started")
    assert f"{name}, which this service uses" in record["reason"]
