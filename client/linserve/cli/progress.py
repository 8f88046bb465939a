"""Progress bars on stderr, only if it is a terminal."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from linserve.cli.output import console
from linserve.cli.text import clean

Job = dict[str, Any]


def shows(*, quiet: bool) -> bool:
    return not quiet and sys.stderr.isatty()


@contextlib.contextmanager
def upload_bar(name: str, size: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes the number of bytes sent so far."""
    if not shows(quiet=quiet):
        yield lambda _sent: None
        return
    from rich import progress  # loaded for a terminal only, because it takes 30 ms

    columns = (progress.BarColumn(), progress.DownloadColumn(), progress.TransferSpeedColumn())
    with progress.Progress(_label(), *columns, console=console(sys.stderr), transient=True) as bar:
        task = bar.add_task(f"Sending {clean(name)}", total=size)
        yield lambda sent: bar.update(task, completed=sent)


@contextlib.contextmanager
def training_bar(*, quiet: bool) -> Iterator[Callable[[Job], None]]:
    """Yield a function that takes the job whenever it changes."""
    if not shows(quiet=quiet):
        yield lambda _job: None
        return
    from rich import progress  # as above

    columns = (progress.BarColumn(), progress.TaskProgressColumn(), progress.TimeElapsedColumn())
    with progress.Progress(_label(), *columns, console=console(sys.stderr), transient=True) as bar:
        task = bar.add_task("queued", total=None)

        def update(job: Job) -> None:
            done, total = steps(job)
            bar.update(task, description=clean(describe(job)), completed=done, total=total)

        yield update


def steps(job: Job) -> tuple[int, int | None]:
    """Return the steps done and all steps, or None if their number is unknown."""
    progress = job.get("progress") or {}
    for done, total in (("epoch", "epochs"), ("fragments", "fragments_total")):
        if progress.get(total):
            return progress.get(done) or 0, progress[total]
    return 0, None


def describe(job: Job) -> str:
    """Return the state of a job in a few words, such as `fitting, 12 rows, epoch 3 of 10`."""
    progress = job.get("progress")
    if not progress:
        return str(job["status"])
    words = [str(progress["phase"]), f"{progress['rows']:,} rows"]
    if progress.get("epoch") is not None:
        words.append(f"epoch {progress['epoch']:,} of {progress['epochs']:,}")
    if progress.get("loss") is not None:
        words.append(f"loss {progress['loss']:.6g}")
    return ", ".join(words)


def _label() -> Any:
    from rich.progress import TextColumn  # as above

    return TextColumn("{task.description}", markup=False)
