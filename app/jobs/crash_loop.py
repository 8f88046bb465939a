"""Detect a job that crashes its trainer again and again."""

import contextlib
import json
import os
from pathlib import Path

from app.errors import TrainerCrashed

# Number of crashes after which a job is abandoned. With the trainer's starts and the pauses before them, a job that
# crashes at once takes 15 seconds.
MAX_CRASHES = 5


class CrashLoopGuard:
    """Counts the attempts at a job in a file, because the trainer's memory is lost when it crashes.

    An attempt does not count if the service, `parent`, ended too, or if the job wrote a checkpoint. The file has
    no attempts of trainers with other state folders. Only MAX_RECOVERIES limits those, because the database counts
    orderly stops as well.
    """

    def __init__(self, path: Path, parent: str | None) -> None:
        self._path = path
        self._parent = parent

    def begin(self, job: str, checkpoint: Path) -> None:
        """Count an attempt at the job. Raises TrainerCrashed if MAX_CRASHES came before it."""
        attempt = [job, self._parent, checkpoint.stat().st_mtime_ns if checkpoint.exists() else None]
        count = 0
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
            *last, last_count = json.loads(self._path.read_text())
            count = int(last_count) if last == attempt else 0
        if count >= MAX_CRASHES:
            raise TrainerCrashed(
                f"The trainer crashed {MAX_CRASHES} times while running this job. The job was abandoned."
            )
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}.tmp")
        with contextlib.suppress(OSError):  # a full disk does not keep the job from running
            temporary.write_text(json.dumps([*attempt, count + 1]))
            temporary.rename(self._path)

    def end(self) -> None:
        """Forget the job, because it ended or was stopped in an orderly way."""
        self._path.unlink(missing_ok=True)
