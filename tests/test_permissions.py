"""With a folder that cannot be written, the service still predicts, and names the folder and the missing permission."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from service import NOTEBOOK, ROOT, Service

from app.permissions import why_denied, why_unwritable

# Run a command that sees the folder $1 read-only.
READ_ONLY = """
set -e
mount --bind "$1" "$1"
mount -o remount,bind,ro "$1"
shift
exec "$@"
"""


def test_writable_path_has_no_reason_and_missing_path_depends_on_its_folder(tmp_path: Path) -> None:
    assert why_unwritable(tmp_path) is None
    assert why_unwritable(tmp_path / "a" / "b") is None
    assert why_denied(FileNotFoundError(2, "No such file", "/proc/nowhere")) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_reason_names_the_folder_its_owner_and_the_user() -> None:
    code = """
import os, pathlib, sys
from app.permissions import why_denied, why_unwritable
os.setgroups([]); os.setgid(0); os.setuid(10001)
folder = pathlib.Path(sys.argv[1])
try:
    os.symlink("000001.safetensors", folder / "current")
except OSError as error:
    print(why_denied(error) == why_unwritable(folder / "a" / "b"))
print(why_unwritable(folder))
"""
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are private.
        folder = Path(name)
        folder.chmod(0o755)
        command = [sys.executable, "-c", code, name]
        same, reason = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
        assert same == "True"
        assert reason == (
            f"The folder {folder} cannot be written by user 10001 of group 0: it belongs to user 0 and group "
            f"{folder.stat().st_gid} and has the mode 755. Change its owner or its mode, or run the service as its "
            "owner."
        )


@pytest.mark.parametrize("closed", ["state", pytest.param("models", marks=pytest.mark.slow)])
def test_service_with_an_unwritable_folder_predicts_and_its_trainings_name_the_folder(
    tmp_path: Path, closed: str
) -> None:
    (tmp_path / "state").mkdir()
    Service(tmp_path)  # creates the models folder
    words = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", str(tmp_path / closed)]
    if shutil.which("unshare") is None or subprocess.run([*words, "true"], check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    done = subprocess.run(
        [*words, sys.executable, "-B", __file__, str(tmp_path), closed], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "served\n"), done.stderr


def serve(folder: Path, closed: str) -> None:
    reason = f"The folder {folder / closed}{'/crop-yield' if closed == 'models' else ''} is on a read-only file system."
    service = Service(folder).start()
    try:
        assert service.predict([75, 63, 44])["version"] == 1
        if closed == "state":
            response = service.client.post("/train", json=NOTEBOOK)
            assert response.status_code == 503
            detail = response.json()["detail"]
        else:
            line = {"features": ["x"], "targets": ["y"], "coefficients": [2], "intercept": 1}
            refused = service.client.post("/models/crop-yield/versions", json=line)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert refused.json()["detail"].startswith(reason)
            job = service.train(**NOTEBOOK)
            assert job["status"] == "failed"
            detail = job["error"]["detail"]
        assert detail.startswith(reason), detail
        assert '"folder not writable"' in service.log.read_text()
    finally:
        service.stop()
    sys.stdout.write("served\n")


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2])
