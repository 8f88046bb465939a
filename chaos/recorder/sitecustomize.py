"""Prepare a process of a service under test. Python imports this module first.

Plants a bug in the process, records the order of its writes, or keeps a trainer out of the idle class of the scheduler.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any


def note_writes(record: str) -> None:
    """Note each fsync, link and rename of this process, in the order in which they happen."""
    file = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    real_fsync, real_link, real_rename = os.fsync, os.link, os.rename

    def note(act: str, path: Any, target: Any = None) -> None:
        names = [None if name is None else os.path.abspath(name) for name in (path, target)]
        os.write(file, json.dumps([os.getpid(), act, *names]).encode() + b"\n")

    def fsync(descriptor: int) -> None:
        real_fsync(descriptor)
        note("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))

    def link(source: Any, target: Any, **options: Any) -> None:
        real_link(source, target, **options)
        note("link", source, target)

    def rename(source: Any, target: Any, **options: Any) -> None:
        kind = "point" if os.path.islink(source) else "link"
        real_rename(source, target, **options)
        note(kind, source, target)

    for noting in (fsync, link, rename):
        setattr(os, noting.__name__, noting)


class WithoutPandas:
    """Makes pandas look as if it was not installed."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


# The service does without pandas. pyarrow would load it if it is installed, which takes 0.3 s of each process.
sys.meta_path.insert(0, WithoutPandas)
if os.environ.get("CHAOS_FAIR"):
    os.sched_setscheduler = lambda *_: None
if "CHAOS_RECORD" in os.environ:
    note_writes(os.environ["CHAOS_RECORD"])
if "CHAOS_BUG" in os.environ:
    from chaos.planting import plant_when_loaded  # not above, so that a service without a bug starts sooner

    plant_when_loaded(os.environ["CHAOS_BUG"], Path(os.environ["CHAOS_PLANTED"]))
