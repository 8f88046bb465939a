"""Steps at which a test may kill or stop the process that reaches them. Otherwise nothing happens there.

A test names a folder in CHAOS_FAILPOINTS before it starts the service. A file in it with the name of a step arms that
step, whenever it comes to be there, and holds the name of the signal, as SIGKILL. It is renamed when the step is
reached, so that it acts once, on whichever process comes first.
"""

import os
import signal
from pathlib import Path
from typing import Literal, TypeAlias

TrainingStep: TypeAlias = Literal[
    "spooled",  # uploaded rows are on disk
    "recorded",  # their job is in the database, but not yet acknowledged
    "fitted",
    "temp_written",  # a version's file is written, partly to a buffer
    "fsynced",
    "prepared",  # the marker and `.next` are on disk
    "linked",  # the file has its number
    "promoted",  # `current` points to it
    "checkpoint_opened",  # the file is empty
]
DeletionStep: TypeAlias = Literal[
    "deletion_prepared",  # the last number is on disk, the model is still complete
    "deleted",  # the model is moved, its files are not removed
]
Step: TypeAlias = TrainingStep | DeletionStep

_FOLDER = os.environ.get("CHAOS_FAILPOINTS")


def failpoint(step: Step) -> None:
    """Raise the signal with which a test has armed the step, if any."""
    if _FOLDER is None:
        return
    reached = Path(_FOLDER, f"{step}.reached")
    try:
        Path(_FOLDER, step).rename(reached)
    except FileNotFoundError:
        return
    signal.raise_signal(signal.Signals[reached.read_text()])  # to this thread, which stops here and no line later
