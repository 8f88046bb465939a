"""Short form of the random sequences of `regression.sequences`, and those that once published a wrong number."""

import pytest
from regression.sequences import Report, run

# A few sequences are enough here. `python -m regression.sequences` runs as many as it is given.
SEEDS = [range(10), range(10, 40), range(40, 70)]

FOUND = {
    "a sum of squares about zero is rounded more than one about the shift": 13,
    "the last of two outliers is forgotten after a larger one": 26,
    "as many rows as coefficients remain after single forgets": 44,
    "an outlier of the target hides that standard errors were lost": 53,
    "the prediction at the shift of nearly collinear columns": 58,
    "rows that count more than decay has left": 770,
    "weights of 120 powers of ten": 1547,
    "a part of a frequency weight after decay": 1609,
    "less than one degree of freedom": 4543,
    "rows with residuals that the sum has lost": 2304,
    "more rows were forgotten in part than are left": 3369,
    "an error that is small for deviations but not about zero": 3516,
    "a constant column without an intercept": 10151,
    "the residual sum of a ridge": 20996,
    "residuals between rounding errors and the rank's tolerance": 32943,
}


def run_all(seeds: range) -> Report:
    whole = Report()
    for seed in seeds:
        whole.add(run(seed))
    return whole


@pytest.mark.parametrize(
    "seeds", [SEEDS[0], *(pytest.param(seeds, marks=pytest.mark.slow) for seeds in SEEDS[1:])], ids=str
)
def test_published_numbers_are_right_to_their_bound_or_withheld_or_refused(seeds: range) -> None:
    report = run_all(seeds)

    assert not report.violations
    # Most of it is published, and all the other outcomes occur.
    assert report.counts["published"] > 0.5 * report.counts["steps"]
    assert all(report.counts[outcome] for outcome in ("withheld", "failed", "refused", "published after a forget"))


@pytest.mark.parametrize("name", FOUND)
def test_sequences_that_once_published_a_wrong_number_no_longer_do(name: str) -> None:
    assert not run(FOUND[name]).violations
