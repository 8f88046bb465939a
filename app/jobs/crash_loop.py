"""How often a trainer died under the job that it runs."""

import contextlib
import json
import os
from pathlib import Path

from app.errors import TrainerCrashed

# Each takes the trainer's start and the pause before it: a job that crashes every time is given up after 15 seconds.
MOST = 5


class CrashLoopGuard:
    """A note of the job that is tried, outside the process that may die of it.

    A death that is not the job's does not count: not that of the service, `parent`, nor one after the job had got on.
    """

    def __init__(self, path: Path, parent: str | None) -> None:
        self._path = path
        self._parent = parent

    def begin(self, job: str, checkpoint: Path) -> None:
        """Note that the job is tried once more. Raises TrainerCrashed where it was tried too often."""
        now = [job, self._parent, checkpoint.stat().st_mtime_ns if checkpoint.exists() else None]
        count = 0
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
            *before, counted = json.loads(self._path.read_text())
            count = int(counted) if before == now else 0
        if count >= MOST:
            raise TrainerCrashed(f"The trainer crashed {MOST} times while running this job. The job was abandoned.")
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}.tmp")
        with contextlib.suppress(OSError):  # a full disk is no reason not to try
            temporary.write_text(json.dumps([*now, count + 1]))
            temporary.rename(self._path)

    def end(self) -> None:
        """Forget the job: it ended, or is interrupted in good order."""
        self._path.unlink(missing_ok=True)
