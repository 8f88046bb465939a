"""A local server of Azure's blobs: azurite, which npm installs from the pinned packages in `tests/azurite`."""

import base64
import contextlib
import hashlib
import hmac
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import httpx
import pytest
from ports import hold_port

PACKAGES = Path(__file__).with_name("azurite")
# The account that the emulator's documentation gives.
ACCOUNT = "devstoreaccount1"
KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2"  # pragma: allowlist secret
    "UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # pragma: allowlist secret
)


def _command(folder: Path) -> str:
    """Return the path of azurite. Install it if it is not installed."""
    if installed := shutil.which("azurite-blob"):
        return installed
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed, and neither is azurite")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(PACKAGES / name, folder)
    subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, check=True, capture_output=True
    )
    return str(folder / "node_modules" / ".bin" / "azurite-blob")


@contextlib.contextmanager
def azure_server(folder: Path) -> Iterator[str]:
    """Yield the URL of a server, and set the variables of its clients meanwhile."""
    port = hold_port(azure_server)
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
    command = [_command(folder), "--blobPort", str(port), "--inMemoryPersistence", "--silent", "--disableTelemetry"]
    command += ["--skipApiVersionCheck"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert server.poll() is None, "azurite did not start"
            assert time.monotonic() < deadline, "azurite did not start in time"
            time.sleep(0.02)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
            patch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
            patch.setenv("AZURE_STORAGE_ENDPOINT", endpoint)
            yield endpoint
        server.kill()


def container_url() -> str:
    """Return the URL of a new container."""
    name = uuid.uuid4().hex
    date = formatdate(usegmt=True)
    signed = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:2021-08-06\n"
    signed += f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    signature = base64.b64encode(hmac.digest(base64.b64decode(KEY), signed.encode(), hashlib.sha256)).decode()
    httpx.put(
        f"{os.environ['AZURE_STORAGE_ENDPOINT']}/{name}",
        params={"restype": "container"},
        headers={
            "x-ms-date": date,
            "x-ms-version": "2021-08-06",
            "Authorization": f"SharedKey {ACCOUNT}:{signature}",
        },
    ).raise_for_status()
    return f"az://{name}/linserve"
