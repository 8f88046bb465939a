"""`make chaos-proof`: plant bugs in the service, one at a time. The harness must catch each."""

import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from chaos import planting
from chaos.bugs import BUGS, Bug
from chaos.phases import Phase
from chaos.planting import NotPlanted
from chaos.stage import Environment
from chaos.violation import Unable, Violation


class Missed(Exception):
    """The harness did not notice the bug."""


def caught(bug: Bug, environment: Environment | None = None) -> str:
    """Return the harness's message about the bug. Raises Missed; NotPlanted if the service did not have the bug."""
    with tempfile.TemporaryDirectory(prefix="chaos-bug-") as folder:
        record = Path(folder, "planted")
        planted = {**(environment or {}), planting.BUG: bug.plant.address, planting.RECORD: str(record)}
        message: str | None = None
        try:
            bug.phase(Path(folder, "stage"), planted, bug.seconds)
        except Violation as violation:
            message = str(violation)
        except AssertionError:  # the service did not start
            planting.check_outcome(record, started=False)
            raise
        planting.check_outcome(record)
    if message is None:
        raise Missed(f"{bug.name}: not caught")
    if not re.search(bug.message, message):
        raise Missed(f"{bug.name}: caught another fault: {message}")
    return message


def prove(print_line: Callable[[str], None]) -> int:
    """Return 0 if the unchanged service passes and every bug is caught, else 1."""
    failed = 0
    for name, (phase, seconds) in {_name_of(bug.phase): (bug.phase, bug.seconds) for bug in BUGS}.items():
        with tempfile.TemporaryDirectory(prefix="chaos-bug-") as folder:
            try:
                phase(Path(folder, "stage"), {}, seconds)
                print_line(f"no bug, {name}: passed")
            except Unable as reason:
                print_line(f"no bug, {name}: could not run here: {reason}")
            except Violation as violation:
                failed += 1
                print_line(f"no bug, {name}: FAILED: {violation}")
    for bug in BUGS:
        try:
            print_line(f"{bug.name}: caught: {caught(bug)[:300]}")
        except Unable as reason:
            print_line(f"{bug.name}: could not run here: {reason}")
        except Missed as missed:
            failed += 1
            print_line(f"MISSED: {missed}")
        except NotPlanted as fault:
            failed += 1
            print_line(f"NOT PLANTED: {bug.name}: {fault}")
    return 1 if failed else 0


def _name_of(phase: Phase) -> str:
    if isinstance(phase, partial):
        return f"{phase.func.__name__} at {', '.join(phase.keywords['steps'])}"
    return getattr(phase, "__name__", str(phase))
