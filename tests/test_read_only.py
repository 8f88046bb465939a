"""The service with a read-only file system, except for its two folders, as in a container."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from service import INPUTS, NOTEBOOK, Service

# Run a command that sees only the folder $1 writable.
READ_ONLY = """
set -e
mount --bind "$1" "$1"
while read -r _ place _; do
    case "$place" in
        "$1" | /dev | /dev/* | /proc | /proc/* | /sys | /sys/*) ;;
        *) mount -o remount,bind,ro "$place" ;;
    esac
done </proc/mounts
shift
exec "$@"
"""


def inside(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    words = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", str(folder), *command]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_service_writes_only_to_the_models_and_state_folders(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or inside(tmp_path, "true").returncode != 0:
        pytest.skip("mounting is not allowed here")
    assert inside(tmp_path, "touch", str(tmp_path.parent / "x")).returncode != 0
    assert inside(tmp_path, "touch", str(tmp_path / "x")).returncode == 0

    served = inside(tmp_path, sys.executable, "-B", __file__, str(tmp_path))
    assert (served.returncode, served.stdout) == (0, "served\n"), served.stderr


def serve(folder: Path) -> None:
    """Use every part of the service that writes something."""
    service = Service(folder, workers=2).start()
    try:
        assert service.train(**NOTEBOOK)["version"] == 2
        descent = {"kind": "gradient_descent", "epochs": 2}
        assert service.train(**NOTEBOOK, solver=descent)["status"] == "succeeded"
        assert len(service.predict(*INPUTS)["predictions"]) == len(INPUTS)
        table = b"temp,rainfall,humidity\n" + b"75,63,44\n" * 1_000_000  # spills to a file
        response = service.client.post("/predict", content=table, headers={"content-type": "text/csv"})
        assert response.text.count("\n") == 1_000_001
        assert "linserve_requests_total" in service.client.get("/metrics").text
    finally:
        assert service.stop() == 0
    sys.stdout.write("served\n")


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
