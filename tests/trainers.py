"""External trainers of a service."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from service import ROOT, Service, python_path, wait_for


@contextlib.contextmanager
def trainer(
    service: Service, name: str, *, group: Path | None = None, **settings: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a trainer of this name, in the control group `group` if it is given. Its log is next to the service's."""
    given = {
        "LINSERVE_STATE_DIR": str(service.state),
        "LINSERVE_MODELS_DIR": str(service.models),
        "LINSERVE_TRAINER_NAME": name,
    }
    with log_of(service, name).open("ab") as log:
        process = subprocess.Popen(
            in_group(group, [sys.executable, "-m", "app.trainer"]),
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": python_path()} | given | settings,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def in_group(group: Path | None, command: list[str]) -> list[str]:
    """Return a command that runs `command` in the control group, if there is one."""
    if group is None:
        return command
    return ["sh", "-c", f'echo $$ >"{group}/cgroup.procs" && exec "$@"', "sh", *command]


def wait_until_ready(service: Service, name: str) -> None:
    wait_for(lambda: "trainer ready" in log_of(service, name).read_text())


def log_of(service: Service, name: str) -> Path:
    return service.state.parent / f"{name}.log"
