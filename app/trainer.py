"""The training process: `python -m app.trainer`.

The service starts one by itself. Started by hand, with LINSERVE_TRAINER_MODE=external for the service, it runs alone,
on another machine too if the models and state folders are shared and the job database is Postgres.
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

from app import logs
from app.errors import Unavailable
from app.settings import PARENT, load
from app.storage.file_lock import is_at

PR_SET_PDEATHSIG = 1
NICENESS = 19
OOM_SCORE = 500  # of 1000, added to the share of the memory that this process uses

_log = logging.getLogger("app.trainer")  # not __main__, as which it is run


def main() -> None:
    logs.configure()
    try:
        settings = load()
    except ValueError as error:
        _log.critical("not started", extra={"reason": str(error)})
        sys.exit(1)
    if PARENT in os.environ:
        _die_with_parent(int(os.environ[PARENT]))
    else:
        _wait_for_turn(settings.trainer_lock)
    _step_back()
    threads = settings.trainer_threads or os.cpu_count() or 1
    # Read when numpy and torch are loaded, which is why nothing above loads them.
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(threads)

    from app.jobs.crash_loop import CrashLoopGuard
    from app.jobs.host.cpu_affinity import PredictionActivity
    from app.jobs.host.memory_limit import check_memory_for_torch, limit_memory
    from app.jobs.uploads import UploadStore
    from app.jobs.worker import run_worker
    from app.registry.registry import Registry
    from app.training.pipeline import TrainerContext

    limit_memory(settings.trainer_memory)
    stop = threading.Event()

    def stop_soon(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, stop_soon)
    signal.signal(signal.SIGINT, stop_soon)
    workshop = TrainerContext(
        Registry(settings.models_dir),
        UploadStore(settings.spool),
        settings.checkpoints,
        threads,
        check_memory_for_torch,
    )
    try:
        run_worker(
            settings.job_database_url,
            settings.trainer_name,
            workshop,
            traffic=PredictionActivity(settings.traffic),
            capabilities=settings.capabilities,
            seen=settings.trainer_seen,
            lock_of=settings.lock_of,
            attempts=CrashLoopGuard(settings.attempt, os.environ.get(PARENT)),
            max_job_seconds=settings.max_job_seconds,
            max_retained_jobs=settings.max_retained_jobs,
            stop=stop,
        )
    except Unavailable:  # the log says so; whoever started this process starts another
        os._exit(1)
    os._exit(0)  # without waiting for the threads of a job under way


def _step_back() -> None:
    """Take only the time that nothing else wants, so that predictions do not notice a training.

    If the machine or the container runs out of memory, the kernel ends this process and not a web worker.

    On Linux the idle class gives way to a worker that wakes up; a nice process would still end its slice.
    """
    if sys.platform.startswith("linux"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(NICENESS)
    with contextlib.suppress(OSError):  # not Linux, or /proc cannot be written
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))


def _wait_for_turn(lock: Path) -> None:
    """Return once no other trainer of this name works in the state folder, neither a service's own nor one apart."""
    lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)  # held for as long as this process lives
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _log.warning("another trainer works here", extra={"lock": str(lock)})
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    if not is_at(descriptor, lock):  # its folder was removed meanwhile
        os.close(descriptor)
        _wait_for_turn(lock)


def _die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the web worker that started it dies, however it dies."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        _log.warning("not started", extra={"reason": "The service that started this trainer is gone."})
        sys.exit(1)


if __name__ == "__main__":
    main()
