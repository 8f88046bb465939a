"""The memory that a training may take."""

import contextlib
import os
import resource
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from app.errors import MemoryExceeded
from app.jobs.control_groups import memory_limits

SHARE = 0.75  # of the machine's memory, unless the operator says otherwise
SMALL = 512 << 20  # bytes, below which a limit has to leave out what is reserved and not used


def limit_memory(limit: int | None) -> None:
    """Let this process allocate so many bytes at most: what it asks for beyond is refused by a MemoryError.

    0 is no limit, None a share of the machine's or the container's memory. Counted is what a process can write to by
    itself, and not the address space, of which CUDA reserves more than any machine has. Call it after the libraries
    are loaded: in a small container they reserve more than the limit, and use less.
    """
    if limit is None:
        limit = int(SHARE * _memory())
        if limit < SMALL:
            limit += _reserved()
    if limit and sys.platform.startswith("linux"):
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))


def _memory() -> int:
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *memory_limits()])


def _reserved() -> int:
    """Return the bytes of writable memory that this process has reserved and not used."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    reserved, used = (int(fields[name].split()[0]) << 10 for name in ("VmData", "RssAnon"))
    return max(reserved - used, 0)


@contextlib.contextmanager
def within_memory() -> Iterator[None]:
    """Raises MemoryExceeded for whatever numpy, pyarrow and torch raise where there is no memory left."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not _says_so(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the rows that were too many
        raise MemoryExceeded(
            "The training needs more memory than the trainer may have (LINSERVE_TRAINER_MEMORY)."
        ) from None


def _says_so(error: RuntimeError) -> bool:
    # torch has no class of its own for it on the CPU.
    return any(words in str(error) for words in ("can't allocate memory", "out of memory", "not enough memory"))
