"""The devices of the trainer's machine, written to a file for the web processes, which do not load torch."""

import contextlib
import ctypes
import json
import os
from pathlib import Path

from app.errors import DeviceUnavailable


def write_capabilities(path: Path) -> None:
    """Write the devices of this machine to the file."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps({"cuda": has_cuda()}))
    temporary.rename(path)


def has_cuda() -> bool:
    """Return True if there is a CUDA driver. Asking torch would take a second and 200 MB."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def check_device(path: Path, device: str) -> None:
    """Raise DeviceUnavailable if the file states that the trainer does not have the device.

    If there is no valid file, the job itself will check.
    """
    if device != "cuda":
        return
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
        check_cuda(json.loads(path.read_text())["cuda"])


def check_cuda(has_cuda: bool | None) -> None:
    """Raise DeviceUnavailable if `has_cuda` is False. None means that it is not known."""
    if has_cuda is False:
        raise DeviceUnavailable('There is no CUDA device on the training machine. Send "auto" or "cpu".')
