"""Steps at which a test can kill or stop the process that reaches them. In production, they do nothing.

A test sets CHAOS_FAILPOINTS to a folder before it starts the service. To arm a step, at any time, it writes a file with
the name of the step, which contains the name of a signal such as SIGKILL. The first process that reaches the step
renames the file, so the step acts once.
"""

import os
import signal
from pathlib import Path
from typing import Literal, TypeAlias

TrainingStep: TypeAlias = Literal[
    "spooled",  # uploaded rows are on disk
    "handed_over",  # with a store: they are in the store, and no longer on disk
    "recorded",  # the job is in the database, but not yet acknowledged
    "fitted",
    "temp_written",  # a version's file is written, part of it only to a buffer
    "fsynced",
    "prepared",  # the marker and `.next` are on disk
    "linked",  # the file has its version number
    "promoted",  # `current` points to the file
    "checkpoint_opened",  # the checkpoint is still empty
]
DeletionStep: TypeAlias = Literal[
    "deletion_prepared",  # the last version number is on disk, and the model is still complete
    "deleted",  # the model is moved, and its files are not yet removed
]
Step: TypeAlias = TrainingStep | DeletionStep

_FOLDER = os.environ.get("CHAOS_FAILPOINTS")


def failpoint(step: Step) -> None:
    """Raise the signal with which a test armed this step, if any."""
    if _FOLDER is None:
        return
    reached = Path(_FOLDER, f"{step}.reached")
    try:
        Path(_FOLDER, step).rename(reached)
    except FileNotFoundError:
        return
    signal.raise_signal(signal.Signals[reached.read_text()])  # It goes to this thread, so no later line runs.
