"""The training process: `python -m app.trainer`.

The service starts one by itself. Started by hand, with LINSERVE_TRAINER=external for the service, it runs alone,
on another machine too if the models and state folders are shared and the job database is Postgres.
"""

import ctypes
import os
import signal
import sys
import threading
from types import FrameType

from app import logs
from app.jobs.memory import limit_memory
from app.settings import PARENT, load

PR_SET_PDEATHSIG = 1
NICENESS = 19


def main() -> None:
    logs.configure()
    try:
        settings = load()
    except ValueError as error:
        sys.exit(str(error))
    _die_with_parent()
    _step_back()
    limit_memory(settings.trainer_memory)
    threads = settings.trainer_threads or os.cpu_count() or 1
    # Read when numpy and torch are loaded, which is why nothing above loads them.
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(threads)

    from app.jobs.attempts import Attempts
    from app.jobs.engine import serve
    from app.jobs.spare_cores import Traffic
    from app.jobs.spool import Spool
    from app.jobs.training import Workshop
    from app.registry.registry import Registry

    stop = threading.Event()

    def stop_soon(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, stop_soon)
    signal.signal(signal.SIGINT, stop_soon)
    workshop = Workshop(Registry(settings.models), Spool(settings.spool), settings.checkpoints, threads)
    serve(
        settings.job_database_url,
        settings.executor,
        workshop,
        traffic=Traffic(settings.traffic),
        capabilities=settings.capabilities,
        attempts=Attempts(settings.attempt, os.environ.get(PARENT)),
        max_job_seconds=settings.max_job_seconds,
        max_kept_jobs=settings.max_kept_jobs,
        stop=stop,
    )
    os._exit(0)  # without waiting for the threads of a job under way


def _step_back() -> None:
    """Take only the time that nothing else wants, so that predictions do not notice a training.

    On Linux the idle class gives way to a worker that wakes up; a nice process would still end its slice.
    """
    if sys.platform.startswith("linux"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(NICENESS)


def _die_with_parent() -> None:
    """Have the kernel kill this process when the web worker that started it dies, however it dies."""
    parent = os.environ.get(PARENT)
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit("The service that started this trainer is gone.")


if __name__ == "__main__":
    main()
