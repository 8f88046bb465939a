"""`make chaos-proof`: bugs are planted one at a time in a copy of the service, and the harness must catch each."""

import re
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from service import ROOT

from chaos.bugs import BUGS, Bug
from chaos.phases import Phase
from chaos.violation import Unable, Violation


def plant(bug: Bug | None, root: Path) -> None:
    """Copy the service into `root`, with the bug in it."""
    shutil.copytree(ROOT / "app", root / "app", ignore=shutil.ignore_patterns("__pycache__"))
    for name, changes in bug.changes.items() if bug else ():
        path = root / "app" / name
        source = path.read_text()
        for before, after in changes:
            if source.count(before) != 1:
                raise LookupError(
                    f"{bug.name if bug else ''}: {name} no longer has once what the bug replaces: {before}"
                )
            source = source.replace(before, after)
        path.write_text(source)


def caught(bug: Bug) -> str:
    """What the harness says of the bug. Raises LookupError where it says nothing."""
    with tempfile.TemporaryDirectory(prefix="chaos-bug-") as folder:
        plant(bug, Path(folder, "root"))
        try:
            bug.phase(Path(folder, "stage"), Path(folder, "root"), bug.seconds)
        except Violation as violation:
            if re.search(bug.says, str(violation)):
                return str(violation)
            raise LookupError(f"{bug.name}: noticed something else: {violation}") from None
    raise LookupError(f"{bug.name}: not caught")


def prove(say: Callable[[str], None]) -> int:
    """The exit status: 0 where the harness passes the service as it is, and catches every bug."""
    failed = 0
    for name, (phase, seconds) in {_name_of(bug.phase): (bug.phase, bug.seconds) for bug in BUGS}.items():
        with tempfile.TemporaryDirectory(prefix="chaos-bug-") as folder:
            plant(None, Path(folder, "root"))
            try:
                phase(Path(folder, "stage"), Path(folder, "root"), seconds)
                say(f"no bug, {name}: passed")
            except Unable as reason:
                say(f"no bug, {name}: not tried here: {reason}")
            except Violation as violation:
                failed += 1
                say(f"no bug, {name}: REFUSED: {violation}")
    for bug in BUGS:
        try:
            say(f"{bug.name}: caught: {caught(bug)[:300]}")
        except Unable as reason:
            say(f"{bug.name}: not tried here: {reason}")
        except LookupError as missed:
            failed += 1
            say(f"MISSED: {missed}")
    return 1 if failed else 0


def _name_of(phase: Phase) -> str:
    if isinstance(phase, partial):
        return f"{phase.func.__name__} at {', '.join(phase.keywords['steps'])}"
    return getattr(phase, "__name__", str(phase))
