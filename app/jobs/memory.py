"""The memory that a training may take."""

import contextlib
import os
import resource
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from app.errors import MemoryExceeded

SHARE = 0.75  # of the machine's memory, unless the operator says otherwise

_CONTAINERS_LIMIT = Path("/sys/fs/cgroup/memory.max")


def limit_memory(limit: int | None) -> None:
    """Let this process allocate so many bytes at most: what it asks for beyond is refused by a MemoryError.

    0 is no limit, None a share of the machine's or the container's memory. Counted is what a process can write to by
    itself, and not the address space, of which CUDA reserves more than any machine has.
    """
    if limit is None:
        limit = int(SHARE * _memory())
    if limit and sys.platform.startswith("linux"):
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))


def _memory() -> int:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # there is no container, or no limit to it
        memory = min(memory, int(_CONTAINERS_LIMIT.read_text()))
    return memory


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
