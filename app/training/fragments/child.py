"""A child process of the trainer, which reads fragments: `python -m app.training.fragments.child PARENT WORKERS`.

It inherits the priority of the trainer, and shares the cores that the trainer leaves to predictions.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
import threading
import time
from typing import BinaryIO

PR_SET_PDEATHSIG = 1
CHECK_SECONDS = 0.02
LEAST_BYTES = 1 << 29  # Least limit of a process's memory, in bytes, unless the trainer's own is lower.


def main() -> None:
    parent, workers = int(sys.argv[1]), int(sys.argv[2])
    _die_with_parent(parent)
    _limit_memory(workers)
    # Results are written to the standard output, so nothing else may be.
    output = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    threading.Thread(target=_share_cores, args=(parent,), daemon=True).start()
    from app.training.fragments.processes import LENGTH
    from app.training.fragments.work import answer

    while len(head := _read(sys.stdin.buffer, LENGTH.size)) == LENGTH.size:
        (length,) = LENGTH.unpack(head)
        result = answer(_read(sys.stdin.buffer, length))
        left = memoryview(LENGTH.pack(len(result)) + result)
        while left:
            left = left[output.write(left) :]


def _read(file: BinaryIO, length: int) -> bytes:
    return file.read(length)


def _die_with_parent(parent: int) -> None:
    """Make the kernel kill this process when the thread that started it ends, at the latest with the trainer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the trainer too
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)


def _limit_memory(workers: int) -> None:
    """Divide the memory that the trainer may allocate by the number of these processes."""
    if not sys.platform.startswith("linux"):
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft > 0:
        resource.setrlimit(resource.RLIMIT_DATA, (min(soft, max(soft // workers, LEAST_BYTES)), hard))


def _share_cores(parent: int) -> None:
    """Run on the cores on which the trainer runs. It leaves some to predictions while there are any."""
    if not hasattr(os, "sched_getaffinity"):
        return
    allowed = os.sched_getaffinity(0)
    while True:
        with contextlib.suppress(OSError):
            if (chosen := os.sched_getaffinity(parent)) != allowed:
                for thread in os.listdir("/proc/self/task"):  # noqa: PTH208 - only names are needed
                    os.sched_setaffinity(int(thread), chosen)
                allowed = chosen
        time.sleep(CHECK_SECONDS)


if __name__ == "__main__":
    main()
