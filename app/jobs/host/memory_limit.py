"""Limit the memory of the trainer, and recognise the errors of libraries that run out of it."""

import contextlib
import errno
import os
import resource
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from app.errors import MemoryExceeded
from app.jobs.host.control_groups import memory_limits

SHARE = 0.75  # Share of the machine's memory that the trainer may allocate by default.
SMALL = 1 << 30  # Limit in bytes below which memory that is reserved and not used is not counted.
TORCH = 192 << 20  # Bytes that loading torch and a small descent take.
THREADS = 14  # Number of threads that the trainer starts with its first job. Those that read large files are extra.
STACK = 8 << 20  # Largest number of bytes counted for the stack of a thread.
HINT = "Raise LINSERVE_TRAINER_MEMORY, or the memory of the container."

# Texts in errors of torch, of threads and of the library loader, which have no class for a lack of memory.
_MESSAGES = (
    "allocate memory",
    "out of memory",
    "not enough memory",
    "can't start new thread",
    "failed to map segment",
    "resource temporarily unavailable",  # for a thread
)


def limit_memory(limit: int | None, warm_up: Callable[[], None]) -> None:
    """Let this process allocate at most `limit` bytes. Further allocations raise MemoryError.

    0 means no limit, and None means SHARE of the machine's or the container's memory. The limit counts private writable
    memory, and not the address space, of which CUDA reserves more than any machine has. For a small limit, `warm_up`
    loads the libraries first, and the memory that they have reserved and do not use is not counted.
    """
    if limit is None:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        limit = int(SHARE * min([machine, *memory_limits()]))
    if 0 < limit < SMALL:
        warm_up()
        stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
        limit += _reserved() + THREADS * (stack if 0 < stack < STACK else STACK)
    if limit and sys.platform.startswith("linux"):
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))


def check_memory_for_torch() -> None:
    """Raise MemoryExceeded if the limit leaves too little memory for torch.

    torch and the libraries that it loads hang or crash if they run out of memory while they load.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit < 0 or "torch" in sys.modules or not (status := _status()):
        return
    left = limit - status["VmData"]
    if left < TORCH:
        raise MemoryExceeded(
            f"The training needs torch, which takes {TORCH >> 20} MiB of memory, and the trainer may allocate "
            f"{max(left, 0) >> 20} MiB more. {HINT}"
        )


def _reserved() -> int:
    """Return the bytes of writable memory that this process has reserved and not used."""
    status = _status()
    return max(status["VmData"] - status["RssAnon"], 0) if status else 0


def _status() -> dict[str, int]:
    """Return the memory of this process in bytes, or nothing on systems other than Linux."""
    path = Path("/proc/self/status")
    if not path.exists():
        return {}
    fields = dict(line.split(":", 1) for line in path.read_text().splitlines())
    return {name: int(fields[name].split()[0]) << 10 for name in ("VmData", "RssAnon")}


@contextlib.contextmanager
def within_memory() -> Iterator[None]:
    """Raise MemoryExceeded instead of the errors that numpy, pyarrow and torch raise for a lack of memory."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError, ImportError) as error:
        if not _is_lack_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the rows that filled the memory
        raise MemoryExceeded(f"The training needs more memory than the trainer may have. {HINT}") from None


def _is_lack_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    return any(message in text for message in _MESSAGES)
