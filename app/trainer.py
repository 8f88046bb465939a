"""The training process: `python -m app.trainer`.

The service starts one by itself. With LINSERVE_TRAINER_MODE=external, start it by hand. It can run on another machine
if the models and state folders are shared and the job database is Postgres.
"""

import contextlib
import ctypes
import fcntl
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import NoReturn

from app import logs
from app.errors import Unavailable
from app.private_names import check_private_names
from app.settings import PARENT, load
from app.storage.file_lock import is_at

PR_SET_PDEATHSIG = 1
NICENESS = 19
# Added to the kernel's score of this process when memory runs out, of 1,000.
OOM_SCORE = 500

_log = logging.getLogger("app.trainer")  # not __main__, the name under which it runs


def main() -> None:
    logs.configure()
    try:
        settings = load()
    except ValueError as error:
        _exit_before_start(error)
    if PARENT in os.environ:
        _die_with_parent(int(os.environ[PARENT]))
    else:
        _wait_for_turn(settings.trainer_lock)
    _lower_priority()
    threads = settings.trainer_threads or os.cpu_count() or 1
    # numpy and torch read these variables when they are imported, so nothing above imports them.
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(threads)
    try:
        check_private_names("dbos")
    except ImportError as error:
        _exit_before_start(error)

    from app.jobs.crash_loop import CrashLoopGuard
    from app.jobs.host.cpu_affinity import PredictionActivity
    from app.jobs.host.memory_limit import limit_memory
    from app.jobs.uploads import UploadStore
    from app.jobs.worker import run_worker
    from app.registry.registry import Registry
    from app.training.pipeline import TrainerContext

    limit_memory(settings.trainer_memory)
    stop = threading.Event()

    def request_stop(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, request_stop)
    signal.signal(signal.SIGINT, request_stop)
    context = TrainerContext(Registry(settings.models_dir), UploadStore(settings.spool), settings.checkpoints, threads)
    try:
        run_worker(
            settings.job_database_url,
            settings.trainer_name,
            context,
            traffic=PredictionActivity(settings.traffic),
            capabilities=settings.capabilities,
            seen=settings.trainer_seen,
            lock_of=settings.lock_of,
            attempts=CrashLoopGuard(settings.attempt, os.environ.get(PARENT)),
            max_job_seconds=settings.max_job_seconds,
            max_retained_jobs=settings.max_retained_jobs,
            stop=stop,
        )
    except Unavailable:  # It is logged. The supervisor or the operator starts another trainer.
        os._exit(1)
    os._exit(0)  # without waiting for the threads of a running job


def _exit_before_start(error: Exception) -> NoReturn:
    _log.critical("not started", extra={"reason": str(error)})
    sys.exit(1)


def _lower_priority() -> None:
    """Use only idle CPU time, so that a training does not slow predictions.

    If the machine or the container runs out of memory, the kernel kills this process rather than a web worker.

    On Linux, the idle scheduling class yields at once to a worker that wakes up. A nice process would finish its time
    slice.
    """
    if sys.platform.startswith("linux"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(NICENESS)
    with contextlib.suppress(OSError):  # not Linux, or /proc cannot be written
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))


def _wait_for_turn(lock: Path) -> None:
    """Wait until no other trainer of this name works in the state folder, embedded or external."""
    lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)  # held until this process exits
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _log.warning("another trainer works here", extra={"lock": str(lock)})
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    if not is_at(descriptor, lock):  # The folder was removed meanwhile.
        os.close(descriptor)
        _wait_for_turn(lock)


def _die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the web worker that started it exits for any reason."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        _log.warning("not started", extra={"reason": "The service that started this trainer has exited."})
        sys.exit(1)


if __name__ == "__main__":
    main()
