"""Run tasks on a Ray cluster. Only tasks and results as bytes travel, in Ray's own transport.

Ray is an optional dependency: `pip install '.[ray]'`.
"""

import logging
import os
import threading
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

from app.errors import Unavailable
from app.training.fragments.executors import ATTEMPTS, POLL_SECONDS, FragmentTask, lost

LOCAL = "local"
STARTS = 3  # Attempts to start a local Ray, which waits only 15 seconds for its own processes.
STORE_BYTES = 100 << 20  # Size of the object store of a local Ray. Tasks and results are small and do not use it.
AHEAD = 2  # Tasks for each core that are submitted at a time, so that no core waits for the next one.

_CODE = Path(__file__).parents[2]

_log = logging.getLogger(__name__)


class RayCluster:
    """The workers of a Ray cluster, which is joined or started at the first task."""

    def __init__(self, address: str, cores: int) -> None:
        """Use the cluster at `address`: `local`, which starts one with `cores` cores, `auto` or ray://HOST:PORT."""
        self._address, self._cores = address, cores
        self._ray: Any = None
        self._answer: Any = None

    @property
    def workers(self) -> int:
        return int(self._joined().cluster_resources().get("CPU", 1))

    def run(self, tasks: Iterable[FragmentTask], poll: Callable[[], None]) -> Generator[tuple[int, bytes], None, None]:
        ray, limit = self._joined(poll), AHEAD * max(1, self.workers)
        waiting, pending = iter(tasks), dict[Any, FragmentTask]()
        try:
            while True:
                while len(pending) < limit and (task := next(waiting, None)) is not None:
                    pending[self._answer.remote(task.content)] = task
                if not pending:
                    return
                poll()
                ended, _ = ray.wait(list(pending), timeout=POLL_SECONDS)
                for reference in ended:
                    task = pending.pop(reference)
                    try:
                        content = ray.get(reference)
                    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError):
                        raise lost(task) from None
                    except ray.exceptions.OutOfMemoryError:
                        raise lost(task) from None
                    except ray.exceptions.RayError as error:
                        _log.error("ray failed", extra={"reason": f"{type(error).__name__}: {error}"[:300]})
                        raise Unavailable("The Ray cluster cannot run this training. Try again later.") from None
                    yield task.index, content
        finally:
            for reference in pending:
                ray.cancel(reference, force=True)

    def end_job(self) -> None:
        """Stay in the cluster, because joining it takes seconds."""

    def close(self) -> None:
        """Leave the cluster. One that was started here ends."""
        if self._ray is not None:
            self._ray.shutdown()
            self._ray = None

    def _joined(self, poll: Callable[[], None] = lambda: None) -> Any:
        """Return the module `ray`, after joining the cluster. Raises Unavailable."""
        if self._ray is not None and self._ray.is_initialized():
            return self._ray
        for attempt in range(1, (STARTS if self._address == LOCAL else 1) + 1):
            failure = self._try(poll)
            if failure is None:
                return self._ray
            reason = f"{type(failure).__name__}: {failure}"[:500]
            _log.error("ray not reached", extra={"reason": reason, "attempt": attempt})
        raise Unavailable("The Ray cluster cannot be reached. Try again later.")

    def _try(self, poll: Callable[[], None]) -> Exception | None:
        """Join the cluster once. Return the error if that fails."""
        joined, failures = threading.Event(), list[Exception]()

        # The kernel ends the processes of a local Ray with the thread that started them, so it must outlive the job.
        def join() -> None:
            try:
                self._join()
            except Exception as error:  # Ray documents no common class of its errors
                failures.append(error)
            joined.set()
            if not failures:
                threading.Event().wait()

        threading.Thread(target=join, name="ray", daemon=True).start()
        while not joined.wait(POLL_SECONDS):
            poll()
        return failures[0] if failures else None

    def _join(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        settings: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        # Ray logs these variables, so credentials are not among them. A local Ray inherits them from this process.
        variables = {"ARROW_DEFAULT_MEMORY_POOL": "system"}
        if self._address == LOCAL:
            variables["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_CODE.parent), os.environ.get("PYTHONPATH"))))
            runtime: dict[str, Any] = {"env_vars": variables}
            settings |= {
                "num_cpus": self._cores,
                "include_dashboard": False,
                "object_store_memory": STORE_BYTES,
            }
        else:
            # The nodes have the dependencies. The code is that of this trainer, so that both agree about tasks.
            runtime = {"env_vars": variables, "py_modules": [str(_CODE)]}
        ray.init(address=self._address, runtime_env=runtime, **settings)
        from app.training.fragments.work import answer

        self._answer = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(answer)
        self._ray = ray
