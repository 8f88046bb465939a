"""Tell the trainers on this machine at once that a job was recorded.

They poll the job database as well, so a message that is lost costs only the time until the next poll.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX = "wake."  # of the sockets' names in the state folder; the trainer's name follows
# Seconds after the end of a job during which a trainer polls for the next one, and between two of these polls.
EAGER_SECONDS, EAGER_INTERVAL = 0.1, 0.005


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[Path]:
    """A path to the folder that is short enough for the address of a socket, which holds 107 bytes."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def wake_trainers(folder: Path) -> None:
    """Send a message to each trainer that listens in this state folder. Nothing is raised, nor waited for."""
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
        _short(folder) as short,
    ):
        sender.setblocking(False)
        for name in os.listdir(folder):  # noqa: PTH208 - names are all that is wanted
            if name.startswith(PREFIX):
                with contextlib.suppress(OSError):  # its trainer was killed, or has messages enough
                    sender.sendto(b"\n", str(short / name))


class PollSchedule:
    """When a trainer polls for jobs: at each message, often after the end of a job, and otherwise at its interval.

    Takes the place of the `threading.Event` at which DBOS's thread for a queue waits between two polls.
    """

    def __init__(self, folder: Path, executor: str) -> None:
        """Listen in the state folder under the trainer's name. Without a socket there, the interval alone counts."""
        self._stopping = threading.Event()
        self._awake = threading.Event()
        self._eager_until = 0.0
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            with _short(folder) as short:
                path = short / f"{PREFIX}{executor}"
                path.unlink(missing_ok=True)  # of a trainer of this name, which is gone: this one holds its lock
                listener.bind(str(path))
                path.chmod(0o600)
        except OSError:
            listener.close()
        else:
            threading.Thread(target=self._listen, args=(listener,), name="wakeups", daemon=True).start()

    def is_set(self) -> bool:
        """Return whether polling is over."""
        return self._stopping.is_set()

    def wait(self, timeout: float) -> bool:
        """Wait for the next poll, `timeout` seconds at most. Return whether polling is over."""
        eager = time.monotonic() < self._eager_until
        self._awake.wait(min(timeout, EAGER_INTERVAL) if eager else timeout)
        self._awake.clear()
        return self._stopping.is_set()

    def job_ended(self) -> None:
        """Poll often for a moment: DBOS records the end of the job, and then gives out the next one."""
        self._eager_until = time.monotonic() + EAGER_SECONDS
        self._awake.set()

    def stop(self) -> None:
        """End the polling."""
        self._stopping.set()
        self._awake.set()

    def _listen(self, listener: socket.socket) -> None:
        with listener:
            while not self._stopping.is_set():
                listener.recv(1)
                self._awake.set()
