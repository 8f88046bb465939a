"""The harness in its short form: for seconds what `make chaos` does for minutes or hours; and that it sees bugs."""

from functools import partial
from pathlib import Path

import pytest
from service import ROOT

from chaos import phases
from chaos.bugs import BUGS, Bug
from chaos.proof import caught, plant
from chaos.violation import Unable


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "seconds", "done"),
    [
        (partial(phases.promotions, floor=phases.FLOOR), 1, "swaps"),  # other tests run beside it
        (phases.kills, 1, "kills"),
        (partial(phases.failpoints, steps=("recorded", "linked", "promoted")), 0, "kills"),
        (phases.hangups, 0, "hangups"),
        (phases.stops, 0, "stops"),
        (phases.pauses, 0, "pauses"),
        (phases.damage, 0, "damaged files"),
        (phases.full_disk, 0, "full disks"),
        (phases.read_only_models, 0, "read-only folders"),
        (phases.two_services, 0, "shared versions"),
        (phases.clock_jumps, 0, "clock jumps"),
        (phases.durability, 0, "ordered writes"),
    ],
    ids=lambda phase: getattr(getattr(phase, "func", phase), "__name__", None),
)
def test_nothing_is_lost_failed_or_mislabelled(tmp_path: Path, phase: phases.Phase, seconds: float, done: str) -> None:
    try:
        counts = phase(tmp_path / "stage", ROOT, seconds)
    except Unable as reason:
        pytest.skip(str(reason))

    assert counts[done] > 0


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_every_planted_bug_still_finds_its_place(tmp_path: Path, bug: Bug) -> None:
    plant(bug, tmp_path)

    for name in bug.changes:
        planted = (tmp_path / "app" / name).read_text()
        assert planted != (ROOT / "app" / name).read_text()
        compile(planted, name, "exec")


@pytest.mark.slow
def test_a_version_that_is_published_twice_is_noticed() -> None:
    bug = next(bug for bug in BUGS if bug.name == "an upload is published twice")

    assert "published twice" in caught(bug)
