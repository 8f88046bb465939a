"""The chaos harness: its phases for seconds each, and the bugs that it must notice."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from service import ROOT, python_path

from chaos import phases, planting
from chaos.bugs import BUGS, Bug
from chaos.cluster import cluster
from chaos.flood import flood
from chaos.planted import jobs
from chaos.proof import caught
from chaos.stage import SMALL
from chaos.trainers import three_trainers
from chaos.violation import Unable


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "seconds", "done"),
    [
        (phases.promotions, 1, "swaps"),
        (phases.durability, 0, "ordered writes"),
        (phases.kills, 1, "kills"),
        (partial(phases.failpoints, steps=("recorded", "linked", "promoted")), 0, "kills"),
        (phases.hangups, 0, "hangups"),
        (phases.stops, 0, "stops"),
        (phases.pauses, 0, "pauses"),
        (phases.damage, 0, "damaged files"),
        (phases.full_disk, 0, "full disks"),
        (phases.read_only_models, 0, "read-only folders"),
        (phases.two_services, 0, "shared versions"),
        (partial(three_trainers, updates=12), 0, "kills"),
        (cluster, 0, "updates"),
        (phases.clock_jumps, 0, "clock jumps"),
        (flood, 0, "tables"),
    ],
    ids=lambda phase: getattr(getattr(phase, "func", phase), "__name__", None),
)
def test_nothing_is_lost_failed_or_mislabelled(tmp_path: Path, phase: phases.Phase, seconds: float, done: str) -> None:
    try:
        counts = phase(tmp_path / "stage", {SMALL: "1"}, seconds)
    except Unable as reason:
        pytest.skip(str(reason))

    assert counts[done] > 0


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_every_planted_bug_changes_the_service_and_can_be_taken_back(bug: Bug) -> None:
    with planting.changed(bug.plant) as old:
        assert old

    with planting.changed(bug.plant) as old_again:
        assert old_again == old


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("uploads.ORPHAN_SECOND = 0", "which the service does not have"),
        ("uploads.UploadStore.finish = None", "which the service does not have"),
        ("pass", "changes nothing"),
        ("from app.jobs import gone", "cannot import name 'gone'"),
        ("from app.jobs import queue; queue.PAGE = 0", "add it to the modules"),
    ],
)
def test_a_bug_that_does_not_change_what_it_should_ends_the_process_and_is_no_miss(
    tmp_path: Path, body: str, fault: str
) -> None:
    source = f"""
from chaos.planting import after
@after("app.training.uploads")
def plant():
    from app.training import uploads
    {body}
"""
    (tmp_path / "outdated.py").write_text(source)

    assert _load("app.training.uploads", "outdated:plant", tmp_path).returncode == planting.EXIT_STATUS
    with pytest.raises(planting.NotPlanted, match=fault):
        planting.check_outcome(tmp_path / "planted")


def test_a_bug_is_planted_when_its_modules_are_loaded_and_not_before(tmp_path: Path) -> None:
    plant = jobs.full_disk_is_an_internal_error

    assert _load("app.storage.file_lock", plant.address, tmp_path).stdout == "\n"
    with pytest.raises(planting.NotPlanted, match="no process"):
        planting.check_outcome(tmp_path / "planted")
    assert _load("app.training.uploads", plant.address, tmp_path).stdout == "find_room\n"
    planting.check_outcome(tmp_path / "planted")


def _load(module: str, address: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Load a module of the service in a process that is to have a bug."""
    path = os.pathsep.join([python_path(), str(folder)])
    environment = {"PYTHONPATH": path, planting.BUG: address, planting.RECORD: str(folder / "planted")}
    program = (
        f"import {module} as found; "
        "print(found.UploadStore.check_room.__name__ if hasattr(found, 'UploadStore') else '')"
    )
    return subprocess.run(
        [sys.executable, "-c", program], env=os.environ | environment, capture_output=True, text=True, check=False
    )


def test_the_documentation_lists_every_planted_bug() -> None:
    page = (ROOT / "docs/explanation/reliability.md").read_text()
    _, _, table = page.partition("| planted bug |")
    rows = table.partition("\n\n")[0].splitlines()[2:]

    assert {row.split(" | ")[0].removeprefix("| ") for row in rows} == {bug.name for bug in BUGS}


@pytest.mark.slow
def test_a_version_that_is_published_twice_is_noticed() -> None:
    bug = next(bug for bug in BUGS if bug.name == "an upload is published twice")

    assert "published twice" in caught(bug, {SMALL: "1"})
