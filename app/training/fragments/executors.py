"""Executors of the tasks of fragments: this process, several processes, or a Ray cluster."""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

from app.errors import TrainingFailed
from app.training.fragments.work import answer

ATTEMPTS = 3  # Times that a task is started, if the processes that run it are killed.
POLL_SECONDS = 0.1  # Longest time between two calls of `poll`.


@dataclass(frozen=True)
class FragmentTask:
    """A task as bytes, its number, and its fragment for messages."""

    index: int
    label: str
    content: bytes


class Executor(Protocol):
    """Runs tasks, several at the same time."""

    @property
    def workers(self) -> int:
        """The number of tasks that run at the same time."""

    def run(self, tasks: Iterable[FragmentTask], poll: Callable[[], None]) -> Generator[tuple[int, bytes], None, None]:
        """Yield the number and the result of each task, in the order in which they end.

        A task is taken when a worker is free. `poll` is called every POLL_SECONDS, and may raise. If it does, or if the
        generator is closed, the tasks under way are killed. Raises TrainingFailed if the process of a task is killed
        ATTEMPTS times.
        """

    def end_job(self) -> None:
        """Release what is needed only during a job. Called in the thread that ran the tasks, which may then end."""


def lost(task: FragmentTask) -> TrainingFailed:
    """Return the error for a task whose processes were killed."""
    return TrainingFailed(
        f"The process that read {task.label} was killed {ATTEMPTS} times, perhaps for lack of memory. Write smaller "
        "row groups, or give the trainer more memory."
    )


class Serial:
    """Runs tasks one after the other in this process."""

    workers = 1

    def run(self, tasks: Iterable[FragmentTask], poll: Callable[[], None]) -> Generator[tuple[int, bytes], None, None]:
        for task in tasks:
            poll()
            yield task.index, answer(task.content)

    def end_job(self) -> None:
        pass


def open_executor(ray_address: str | None, threads: int) -> Executor | None:
    """Return the executor of a trainer: a Ray cluster if it has an address, or otherwise processes of this machine.

    With a single thread, there are none. Raises ImportError if Ray is not installed.
    """
    if ray_address is not None:
        if find_spec("ray") is None:
            raise ImportError("LINSERVE_RAY_ADDRESS is set, but Ray is not installed: pip install '.[ray]'")
        from app.training.fragments.ray_cluster import RayCluster

        return RayCluster(ray_address, threads)
    from app.training.fragments.processes import Processes

    return Processes(threads) if threads > 1 else None
