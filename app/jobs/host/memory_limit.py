"""The memory that a training may take."""

import contextlib
import errno
import os
import resource
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from app.data.batch import Columns
from app.data.formats.csv import CSV
from app.errors import MemoryExceeded
from app.jobs.host.control_groups import memory_limits

SHARE = 0.75  # of the machine's memory, unless the operator says otherwise
SMALL = 1 << 30  # bytes, below which a limit has to leave out what is reserved and not used
TORCH = 192 << 20  # Bytes that loading torch and a small descent take.
THREADS = 14  # Threads that the trainer starts with its first job. More, to read large files, count.
STACK = 8 << 20  # Bytes reserved for the stack of a thread, unless RLIMIT_STACK says otherwise.
HINT = "Raise LINSERVE_TRAINER_MEMORY, or the memory of the container."

# Words of torch on the CPU, of threads and of the loader of libraries, which raise no class of their own for it.
_WORDS = (
    "allocate memory",
    "out of memory",
    "not enough memory",
    "can't start new thread",
    "failed to map segment",
    "resource temporarily unavailable",  # for a thread
)


def limit_memory(limit: int | None) -> None:
    """Let this process allocate `limit` bytes at most: what it asks for beyond is refused by a MemoryError.

    0 is no limit, None a share of the machine's or the container's memory. Counted is what a process can write to by
    itself, and not the address space, of which CUDA reserves more than any machine has. Call it after the libraries
    are loaded: next to a small limit, the memory that they reserve and do not use is large, so it is not counted.
    """
    if limit is None:
        limit = int(SHARE * _memory())
    if 0 < limit < SMALL:
        _load()
        limit += _reserved() + THREADS * _stack()
    if limit and sys.platform.startswith("linux"):
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))


def check_memory_for_torch() -> None:
    """Raise MemoryExceeded if the limit leaves no room for torch.

    torch and the libraries that it loads hang or end the process if they run out of memory while they load.
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


def _load() -> None:
    """Load what most trainings need, and have it reserve its memory."""
    # Arrow's own allocator reserves memory in pieces of up to 1 GiB, and any of it could be used.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    list(CSV.batches(b"x\n1\n", Columns(["x"])))
    square = np.ones((64, 64))
    square @ square


def _stack() -> int:
    size, _ = resource.getrlimit(resource.RLIMIT_STACK)
    return size if 0 < size < STACK else STACK


def _memory() -> int:
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *memory_limits()])


def _reserved() -> int:
    """Return the bytes of writable memory that this process has reserved and not used."""
    status = _status()
    return max(status["VmData"] - status["RssAnon"], 0) if status else 0


def _status() -> dict[str, int]:
    """Return what Linux says of this process's memory, in bytes; elsewhere nothing."""
    path = Path("/proc/self/status")
    if not path.exists():
        return {}
    fields = dict(line.split(":", 1) for line in path.read_text().splitlines())
    return {name: int(fields[name].split()[0]) << 10 for name in ("VmData", "RssAnon")}


@contextlib.contextmanager
def within_memory() -> Iterator[None]:
    """Raise MemoryExceeded in place of the errors of numpy, pyarrow and torch for lack of memory."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError, ImportError) as error:
        if not _is_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the rows that were too many
        raise MemoryExceeded(f"The training needs more memory than the trainer may have. {HINT}") from None


def _is_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    return any(words in text for words in _WORDS)
