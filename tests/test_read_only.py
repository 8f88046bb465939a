"""The service where nothing can be written but its two folders, as in a container with a read-only root."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from service import INPUTS, NOTEBOOK, Service

# A view of the file system of its own, for whatever is run in it.
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
def test_predictions_trainings_and_long_files_need_nothing_but_the_folders_of_models_and_state(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or inside(tmp_path, "true").returncode != 0:
        pytest.skip("mounting is not allowed here")
    assert inside(tmp_path, "touch", str(tmp_path.parent / "x")).returncode != 0
    assert inside(tmp_path, "touch", str(tmp_path / "x")).returncode == 0

    served = inside(tmp_path, sys.executable, "-B", __file__, str(tmp_path))
    assert (served.returncode, served.stdout) == (0, "served\n"), served.stderr


def serve(folder: Path) -> None:
    """Use all of the service that writes something."""
    service = Service(folder, workers=2).start()
    try:
        assert service.train(**NOTEBOOK)["version"] == 2
        descent = {"kind": "gradient_descent", "epochs": 2}
        assert service.train(**NOTEBOOK, solver=descent)["status"] == "succeeded"
        assert len(service.predict(*INPUTS)["predictions"]) == len(INPUTS)
        table = b"temp,rainfall,humidity\n" + b"75,63,44\n" * 1_000_000  # more than stays in memory
        answer = service.client.post("/predict", content=table, headers={"content-type": "text/csv"})
        assert answer.text.count("\n") == 1_000_001
        assert "linserve_requests_total" in service.client.get("/metrics").text
    finally:
        assert service.stop() == 0
    sys.stdout.write("served\n")


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
