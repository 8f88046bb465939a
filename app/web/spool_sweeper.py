"""Remove the uploads that killed requests left on a replica without a trainer.

With a store, an upload is in the local spool only while its request lasts. A trainer of the same state folder sweeps
the spool, but on other machines only the web processes can.
"""

import contextlib
import logging
import os
import threading
from pathlib import Path

from app.storage.file_lock import FileLock
from app.training.uploads import UploadStore

SWEEP_SECONDS = 3600.0  # Time between two sweeps.

_log = logging.getLogger(__name__)


class SpoolSweeper:
    """Sweeps a local spool in a thread, at the start and every SWEEP_SECONDS."""

    def __init__(self, uploads: UploadStore, state_dir: Path) -> None:
        self._uploads = uploads
        self._state_dir = state_dir
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="spool-sweeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def sweep(self) -> None:
        """Remove old files, unless a trainer of this state folder runs: it may read some of them for hours."""
        if self._uploads.is_empty():
            return
        with contextlib.ExitStack() as locks:
            for path in self._state_dir.glob("trainer.*.lock"):
                # While this process holds the lock of a trainer, that trainer cannot start.
                lock = FileLock(path, os.O_RDWR)
                with contextlib.suppress(FileNotFoundError):
                    if not lock.acquire(blocking=False):
                        return
                    locks.enter_context(contextlib.closing(lock))
            self._uploads.sweep(needed=())

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.sweep()
            except OSError as error:  # the folder cannot be written
                _log.warning("spool not swept", extra={"reason": str(error)})
            self._stop.wait(SWEEP_SECONDS)
