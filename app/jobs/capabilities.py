"""What the trainer told of its machine, for the web processes, which do not load torch."""

import contextlib
import json
import os
from pathlib import Path

from app.errors import DeviceUnavailable


def write_capabilities(path: Path, *, cuda: bool) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps({"cuda": cuda}))
    temporary.rename(path)


def check_device(path: Path, device: str) -> None:
    """Raises DeviceUnavailable where the trainer said that it has no such device.

    Where it did not say anything yet, or a power cut left the file empty, the job itself will find out.
    """
    if device != "cuda":
        return
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
        if not json.loads(path.read_text())["cuda"]:
            raise DeviceUnavailable('There is no CUDA device on the training machine; "auto" or "cpu" will do.')
