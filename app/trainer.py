"""The training process: `python -m app.trainer`.

The service starts one by itself. With LINSERVE_TRAINER_MODE=external, start it by hand. It can run on another machine
if the job database is Postgres and the models are in a store that both machines reach.
"""

import contextlib
import ctypes
import gc
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from app import logs
from app.errors import Unavailable
from app.private_names import check_private_names
from app.settings import PARENT, Settings, load

if TYPE_CHECKING:  # it loads numpy
    from app.jobs.lease import TrainerLease
    from app.jobs.worker import Worker
    from app.training.fragments.executors import Executor

PR_SET_PDEATHSIG = 1
NICENESS = 19
OOM_SCORE = 500  # Thousandths added to the share of the memory that this process uses.

_log = logging.getLogger("app.trainer")  # run as __main__


def main() -> None:
    gc.disable()  # Imports leave no garbage. To look for it takes a fifth of the time until this process is ready.
    logs.configure()
    try:
        settings = load()
    except ValueError as error:
        _exit_before_start(error)
    if PARENT in os.environ:
        _die_with_parent(int(os.environ[PARENT]))
    threads = settings.trainer_threads or os.cpu_count() or 1
    # numpy and torch read these when they are loaded, so no module imported above loads them.
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(threads)
    try:
        check_private_names("dbos")
    except ImportError as error:
        _exit_before_start(error)
    from app.training.fragments.executors import open_executor

    try:
        executor = open_executor(settings.ray_address, threads)
    except ImportError as error:
        _exit_before_start(error)
    try:
        lease = _acquire_lease(settings)
    except Unavailable:  # already logged; the supervisor starts another trainer
        os._exit(1)
    _lower_priority()  # after the thread that renews the lease was started

    from app.jobs.host.memory_limit import limit_memory
    from app.jobs.worker import run_worker
    from app.training.dataset import warm_up

    worker = _make_worker(settings, threads, lease, executor)
    limit_memory(settings.trainer_memory, warm_up)  # all other libraries are loaded
    stop = threading.Event()

    def request_stop(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, request_stop)
    signal.signal(signal.SIGINT, request_stop)
    gc.freeze()
    gc.enable()
    try:
        run_worker(worker, stop)
    except Unavailable:  # already logged; the supervisor starts another trainer
        os._exit(1)
    os._exit(0)  # does not wait for the threads of a job under way


def _acquire_lease(settings: Settings) -> "TrainerLease":
    from app.jobs.dbos_database import database_file
    from app.jobs.lease import FileLease, default_name, open_lease

    url, name = settings.job_database_url, settings.trainer_name
    if not database_file(url) and "trainer_name" not in settings.model_fields_set:
        name = default_name(settings.state_dir)
    file = FileLease(
        settings.trainer_name,
        settings.lock_of,
        inherited=PARENT in os.environ,
        capabilities=settings.capabilities,
        seen=settings.trainer_seen,
    )
    lease = open_lease(url, name, file)
    lease.acquire()
    return lease


def _make_worker(settings: Settings, threads: int, lease: "TrainerLease", executor: "Executor | None") -> "Worker":
    from app.jobs.crash_loop import CrashLoopGuard
    from app.jobs.dbos_worker import DBOSWorkerStore
    from app.jobs.host.cpu_affinity import PredictionActivity
    from app.jobs.host.memory_limit import check_memory_for_torch, within_memory
    from app.jobs.worker import Worker
    from app.registry.opening import open_registry
    from app.storage.opening import open_store
    from app.training.pipeline import TrainerContext
    from app.training.uploads import UploadStore

    store = open_store(settings.storage) if settings.storage else None
    return Worker(
        max_job_seconds=settings.max_job_seconds,
        max_retained_jobs=settings.max_retained_jobs,
        lease=lease,
        store=DBOSWorkerStore(settings.job_database_url, settings.trainer_name, lease, settings.state_dir),
        context=TrainerContext(
            open_registry(settings.storage, settings.models_dir),
            UploadStore(settings.spool, store=store),
            settings.checkpoints,
            threads,
            check_memory_for_torch,
            within_memory,
            store=store,
            sources=settings.allowed_sources,
            executor=executor,
        ),
        activity=PredictionActivity(settings.traffic),
        crash_loop=CrashLoopGuard(settings.state_dir / f"attempt.{settings.trainer_name}", os.environ.get(PARENT)),
    )


def _exit_before_start(error: Exception) -> NoReturn:
    _log.critical("not started", extra={"reason": str(error)})
    sys.exit(1)


def _lower_priority() -> None:
    """Take only processor time that no other process needs, so that a training does not slow predictions down.

    If the machine or the container runs out of memory, the kernel kills this process and not a web worker. On Linux
    the idle class yields to a worker that wakes up; a nice process would finish its time slice first.
    """
    if sys.platform.startswith("linux"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(NICENESS)
    with contextlib.suppress(OSError):  # not Linux, or /proc cannot be written
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))


def _die_with_parent(parent: int) -> None:
    """Make the kernel kill this process when the web worker that started it ends for any reason."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        _log.warning("not started", extra={"reason": "The service that started this trainer has exited."})
        sys.exit(1)


if __name__ == "__main__":
    main()
