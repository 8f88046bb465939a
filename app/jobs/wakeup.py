"""Wake the trainers on this machine when a job was recorded.

Trainers also poll the job database, so a lost message only costs the time until the next poll.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX = "wake."  # Prefix of socket names in the state folder. The trainer's name follows.
# Seconds after the end of a job during which a trainer polls for the next one, and between two of these polls.
EAGER_SECONDS, EAGER_INTERVAL = 0.1, 0.005


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[Path]:
    """Yield a path to the folder that fits into a socket address, which has 107 bytes."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def wake_trainers(folder: Path) -> None:
    """Send a message to each trainer that listens in this state folder. Never raises or waits."""
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
        _short(folder) as short,
    ):
        sender.setblocking(False)
        for name in os.listdir(folder):  # noqa: PTH208 - only names are needed
            if name.startswith(PREFIX):
                with contextlib.suppress(OSError):  # its trainer was killed, or its queue is full
                    sender.sendto(b"\n", str(short / name))


class PollSchedule:
    """Decides when a trainer polls for jobs: at each message, often after the end of a job, otherwise at its interval.

    Replaces the `threading.Event` on which the queue thread of DBOS waits between two polls.
    """

    def __init__(self, folder: Path, trainer_name: str) -> None:
        """Listen in the state folder under the trainer's name. If there can be no socket, only the interval applies."""
        self._stopping = threading.Event()
        self._awake = threading.Event()
        self._eager_until = 0.0
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            with _short(folder) as short:
                path = short / f"{PREFIX}{trainer_name}"
                path.unlink(missing_ok=True)  # left by a dead trainer of this name, whose lock this one holds
                listener.bind(str(path))
                path.chmod(0o600)
        except OSError:
            listener.close()
        else:
            threading.Thread(target=self._listen, args=(listener,), name="wakeups", daemon=True).start()

    def is_set(self) -> bool:
        """Return True if polling has been stopped."""
        return self._stopping.is_set()

    def wait(self, timeout: float) -> bool:
        """Wait for the next poll, `timeout` seconds at most. Return True if polling has been stopped."""
        eager = time.monotonic() < self._eager_until
        self._awake.wait(min(timeout, EAGER_INTERVAL) if eager else timeout)
        self._awake.clear()
        return self._stopping.is_set()

    def job_ended(self) -> None:
        """Poll often for EAGER_SECONDS, because DBOS hands out the next job only once this one's end is recorded."""
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
