from dataclasses import replace

import pytest

from app.errors import InvalidInput
from app.registry.model_card import MAX_SHARES, ModelCard, share_to_forget, shares_after
from app.regression.solvers import Exact

CARD = ModelCard(
    model="m",
    version=5,
    features=("x",),
    targets=("y",),
    created_at="2026-01-01T00:00:00.000Z",
    job=None,
    parent=4,
    solver=Exact(),
    rows=10,
    rank=2,
    condition_number=1.0,
    metrics={},
    mode="update",
    earlier_shares={2: 0.25, 4: 0.5},
    discounted=True,
)
BEFORE_SHARES = replace(CARD, earlier_shares=None)


def test_a_version_has_all_of_its_own_rows() -> None:
    assert CARD.shares == {2: 0.25, 4: 0.5, 5: 1.0}


def test_a_version_that_only_forgets_has_no_rows_of_its_own() -> None:
    assert replace(CARD, mode="forget").shares == {2: 0.25, 4: 0.5}


def test_a_version_that_replaces_has_its_own_rows_alone() -> None:
    assert replace(CARD, mode="replace", earlier_shares={}).shares == {5: 1.0}
    assert replace(CARD, mode="replace", earlier_shares=None, discounted=False).shares == {5: 1.0}


def test_the_shares_of_a_version_made_of_a_decayed_file_are_not_known() -> None:
    assert replace(CARD, mode="replace", earlier_shares=None).shares is None


def test_decay_multiplies_the_shares_of_all_rows_before() -> None:
    assert shares_after(CARD, 0.5) == {2: 0.125, 4: 0.25, 5: 0.5}


def test_a_version_from_before_shares_were_recorded_counts_for_all_its_rows_unless_they_decayed() -> None:
    assert replace(BEFORE_SHARES, discounted=False).shares == {5: 1.0}
    assert BEFORE_SHARES.shares is None
    assert shares_after(BEFORE_SHARES, 0.5) is None


def test_only_the_newest_shares_are_kept() -> None:
    card = replace(CARD, version=3000, earlier_shares=dict.fromkeys(range(1, 3000), 0.5))

    found = shares_after(card, 1.0)

    assert found is not None
    assert sorted(found) == list(range(3001 - MAX_SHARES, 3001))


@pytest.mark.parametrize(
    ("card", "trained_in", "share", "expected"),
    [
        (CARD, 4, None, 0.5),
        (CARD, 5, None, 1.0),
        (CARD, None, 0.125, 0.125),
        (BEFORE_SHARES, None, 0.125, 0.125),
        (replace(BEFORE_SHARES, discounted=False), None, None, 1.0),
        (replace(CARD, discounted=False, earlier_shares={4: 1.0}), None, None, 1.0),
    ],
)
def test_the_share_of_rows_to_forget(
    card: ModelCard, trained_in: int | None, share: float | None, expected: float
) -> None:
    assert share_to_forget(card, trained_in, share) == expected


@pytest.mark.parametrize(
    ("card", "trained_in", "says", "pointer"),
    [
        (CARD, 3, "in version 3. It holds rows of: version 5, version 4, version 2.", "/trained_in"),
        (CARD, None, "Shares by version: version 5: 1, version 4: 0.5, version 2: 0.25.", "/trained_in"),
        (BEFORE_SHARES, None, "Give `share`", "/share"),
        (BEFORE_SHARES, 4, "Give `share`", "/trained_in"),
        (replace(CARD, earlier_shares={4: 0.0}), 4, "to zero", "/trained_in"),
        (replace(CARD, earlier_shares=dict.fromkeys(range(1, 5000), 0.5)), 5001, "and 4989 older ones.", "/trained_in"),
    ],
)
def test_a_request_that_does_not_name_a_share_is_rejected(
    card: ModelCard, trained_in: int | None, says: str, pointer: str
) -> None:
    with pytest.raises(InvalidInput) as raised:
        share_to_forget(card, trained_in, None)

    assert says in raised.value.message
    assert len(raised.value.message) < 500
    assert raised.value.details[0].pointer == pointer
