"""Run tasks in processes of this machine, one for each thread that the trainer may use."""

import contextlib
import logging
import os
import selectors
import struct
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import BinaryIO, cast

from app.training.fragments.executors import ATTEMPTS, POLL_SECONDS, FragmentTask, lost

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
LENGTH = struct.Struct("<Q")  # bytes of the task or result that follows

_CODE = str(Path(__file__).parents[3])

_log = logging.getLogger(__name__)


class Processes:
    """Child processes with the priority and the limits of this one. They end with it."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._idle: list[_Child] = []

    def run(self, tasks: Iterable[FragmentTask], poll: Callable[[], None]) -> Generator[tuple[int, bytes], None, None]:
        waiting, attempts = iter(tasks), dict[int, int]()
        again: list[FragmentTask] = []
        with selectors.DefaultSelector() as busy:
            try:
                while True:
                    while len(busy.get_map()) < self.workers:
                        task = again.pop() if again else next(waiting, None)
                        if task is None:
                            break
                        child = self._idle.pop() if self._idle else _Child(self.workers)
                        child.task = task
                        busy.register(child, selectors.EVENT_READ)
                        child.send(task.content)
                    if not busy.get_map():
                        return
                    poll()
                    for key, _ in busy.select(POLL_SECONDS):
                        child = cast("_Child", key.fileobj)
                        assert child.task is not None
                        task, content = child.task, child.receive()
                        if content is None and child.is_alive:
                            continue  # a part of the result
                        busy.unregister(child)
                        child.task = None
                        if content is not None:
                            self._idle.append(child)
                            yield task.index, content
                            continue
                        child.kill()
                        attempts[task.index] = attempts.get(task.index, 0) + 1
                        _log.warning("fragment lost", extra={"fragment": task.label, "attempt": attempts[task.index]})
                        if attempts[task.index] == ATTEMPTS:
                            raise lost(task)
                        again.append(task)
            finally:
                for key in busy.get_map().values():
                    cast("_Child", key.fileobj).kill()

    def end_job(self) -> None:
        """End the idle processes. The kernel would end them with the thread that started them."""
        while self._idle:
            self._idle.pop().kill()


class _Child:
    """One process. It takes a task from its standard input, and writes the result to its standard output."""

    def __init__(self, workers: int) -> None:
        self.task: FragmentTask | None = None
        self.is_alive = True
        self._received = bytearray()
        code = os.pathsep.join(filter(None, (_CODE, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(  # noqa: S603 - the command is ours
            [sys.executable, "-m", "app.training.fragments.child", str(os.getpid()), str(workers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, **dict.fromkeys(THREADS, "1"), "PYTHONPATH": code},
        )

    @property
    def process_id(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        return cast("BinaryIO", self._process.stdout).fileno()

    def send(self, content: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # the process was killed, which `receive` notices
            stdin = cast("BinaryIO", self._process.stdin)
            for part in (LENGTH.pack(len(content)), content):
                left = memoryview(part)
                while left:
                    left = left[stdin.write(left) :]

    def receive(self) -> bytes | None:
        """Return the result if all of it has arrived, or else None. `is_alive` becomes False when the process ends."""
        data = os.read(self.fileno(), 1 << 20)
        if not data:
            self.is_alive = False
            return None
        self._received += data
        if len(self._received) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack_from(self._received)
        if len(self._received) < LENGTH.size + length:
            return None
        content = bytes(self._received[LENGTH.size :])
        self._received.clear()
        return content

    def kill(self) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            cast("BinaryIO", pipe).close()
        self._process.wait()
