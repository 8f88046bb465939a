"""`make fuzz`: send valid and invalid requests made from the OpenAPI document, and check the answers against it.

`python tests/fuzz.py CASES SEED` continues until at least CASES requests have been made.
"""

import hashlib
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import httpx
from service import ROOT, Service

KEY = {"X-API-Key": "fuzz"}
CASES = 100_000
EXAMPLES = 200  # Requests to each operation in one round.
CANCEL_SECONDS = 0.2  # Pause between two rounds of cancelling.
REQUEST_SECONDS = 120  # Longest time for an answer.


def fuzz(service: Service, examples: int, seed: int) -> tuple[int, int, str]:
    """Play one round. Return its exit status, its number of cases, and its report."""
    done = threading.Event()
    canceller = threading.Thread(target=_cancel_jobs, args=(service, done))
    canceller.start()
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{service.url}/openapi.json"]
    command += ["--max-examples", str(examples), "--seed", str(seed)]
    command += [word for name, value in KEY.items() for word in ("--header", f"{name}: {value}")]
    command += [
        "--request-timeout",
        str(REQUEST_SECONDS),
        "--continue-on-failure",
        "--suppress-health-check",
        "all",
        "--warnings",
        "off",
    ]
    try:
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    finally:
        done.set()
        canceller.join()
    report = ended.stdout + ended.stderr
    cases = re.search(r"(\d+) generated", report)
    return ended.returncode, int(cases[1]) if cases else 0, report


def start(folder: Path) -> Service:
    """Start a service that requires a key and keeps no request waiting for a job."""
    keys = folder / "keys"
    keys.write_text(f"fuzz admin {hashlib.sha256(KEY['X-API-Key'].encode()).hexdigest()}\n")
    return Service(folder, max_wait_seconds="0.1", max_queued_jobs="50", api_keys_file=str(keys)).start()


def _cancel_jobs(service: Service, done: threading.Event) -> None:
    """Cancel all jobs again and again, so that the queue has room and requests that follow a job end."""
    with httpx.Client(base_url=service.url, headers=KEY, timeout=60) as client:
        while not done.wait(CANCEL_SECONDS):
            for status in ("queued", "running"):
                for job in client.get("/jobs", params={"status": status, "limit": 200}).json()["items"]:
                    client.post(f"/jobs/{job['id']}/cancel")


def main() -> None:
    wanted, seed = (int(word) for word in [*sys.argv[1:], *(str(CASES), "1")][:2])
    made = 0
    with tempfile.TemporaryDirectory() as folder:
        service = start(Path(folder))
        try:
            while made < wanted:
                status, cases, report = fuzz(service, EXAMPLES, seed)
                made, seed = made + cases, seed + 1
                print(f"{made} cases", flush=True)  # noqa: T201 - a command
                if status or not cases:
                    sys.exit(report)
        finally:
            service.stop()


if __name__ == "__main__":
    main()
