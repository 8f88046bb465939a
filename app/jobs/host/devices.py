"""What the trainer told of its machine, for the web processes, which do not load torch."""

import contextlib
import ctypes
import json
import os
from pathlib import Path

from app.errors import DeviceUnavailable


def write_capabilities(path: Path) -> None:
    """Tell of this machine."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps({"cuda": _has_cuda()}))
    temporary.rename(path)


def _has_cuda() -> bool:
    """Whether there is a driver for CUDA: torch, which needs it, takes a second and 200 MB to say as much."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def check_device(path: Path, device: str) -> None:
    """Raises DeviceUnavailable where the trainer said that it has no such device.

    Where it did not say anything yet, or a power cut left the file empty, the job itself will find out.
    """
    if device != "cuda":
        return
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
        if not json.loads(path.read_text())["cuda"]:
            raise DeviceUnavailable('There is no CUDA device on the training machine. Send "auto" or "cpu".')
