"""Threads that compute parts of the rows at the same time.

numpy and BLAS release the interpreter while they compute, so that threads use all cores.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

from app.regression.cross_products import Workspace

T = TypeVar("T")


class Threads:
    """A number of threads, which are started when they are first used. With one thread, callers compute themselves."""

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self.workspaces: list[Workspace] = []  # of chunks of one fit, for the thread that needs one next
        self._pool: ThreadPoolExecutor | None = None

    def submit(self, call: Callable[[], T]) -> "Future[T]":
        """Compute `call` in a thread."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.count, "fit")
        return self._pool.submit(call)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
