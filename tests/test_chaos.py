"""The harness in its short form: for seconds what `make chaos` does for minutes or hours; and that it sees bugs."""

from functools import partial
from pathlib import Path

import pytest
from service import ROOT

from chaos import phases
from chaos.bugs import BUGS, Bug
from chaos.proof import caught, plant


@pytest.mark.parametrize(
    ("phase", "seconds", "done"),
    [
        (partial(phases.promotions, floor=phases.FLOOR), 1, "swaps"),  # other tests run beside it
        (phases.kills, 1, "kills"),
        (partial(phases.failpoints, steps=("recorded", "linked", "promoted")), 0, "kills"),
        (phases.hangups, 0, "hangups"),
        (phases.stops, 0, "stops"),
        (phases.damage, 0, "damaged files"),
        (phases.two_services, 0, "shared versions"),
    ],
    ids=["promotions", "kills", "failpoints", "hangups", "stops", "damage", "two services"],
)
def test_nothing_is_lost_failed_or_mislabelled(tmp_path: Path, phase: phases.Phase, seconds: float, done: str) -> None:
    counts = phase(tmp_path / "stage", ROOT, seconds)

    assert counts[done] > 0
    assert counts["predictions"] > 0


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_every_planted_bug_still_finds_its_place(tmp_path: Path, bug: Bug) -> None:
    plant(bug, tmp_path)

    for name in bug.changes:
        planted = (tmp_path / "app" / name).read_text()
        assert planted != (ROOT / "app" / name).read_text()
        compile(planted, name, "exec")


def test_a_version_that_is_published_twice_is_noticed() -> None:
    bug = next(bug for bug in BUGS if bug.name == "an upload is published twice")

    assert "published twice" in caught(bug)
