"""Histories: buckets, windows, bounds, and their bytes."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.monitoring import history as bounds
from app.monitoring.history import DAY, HOUR, TIERS, History, Requests, VersionKey
from app.monitoring.served_rows import ServedRows
from app.monitoring.split_counts import Answered, Differences, SplitCounts
from app.monitoring.wire import NotAHistory, decode, encode
from app.regression.moments import Moments

KEY = VersionKey("crop-yield", 1, "2026-07-01T12:00:00.000Z")
NOW = 1_800_000_000.0


def served(seed: int = 0, rows: int = 5, columns: int = 2, *, pairs: bool = True) -> ServedRows:
    values = np.random.default_rng(seed).normal(size=(rows, columns))
    gaps = Counter({"temp": 1})
    moments, fourths = Moments.of(values, pairs=pairs), np.append((values**4).sum(axis=0), 3.0)
    return ServedRows(rows + 3, moments, 0, rows, 1, gaps, Counter({"soil": 2}), fourths)


def assert_same(one: ServedRows, other: ServedRows) -> None:
    for name in ("predicted", "extreme", "checked", "flagged", "gaps", "unseen"):
        assert getattr(one, name) == getattr(other, name)
    assert one.moments is not None
    assert other.moments is not None
    assert one.moments.rows == other.moments.rows
    assert one.fourths == pytest.approx(other.fourths, rel=1e-12)
    for name in ("mean", "products", "minimum", "maximum"):
        assert getattr(one.moments, name) == pytest.approx(getattr(other.moments, name), abs=1e-12)


@given(st.lists(st.tuples(st.integers(0, 6 * DAY), st.integers(0, 5)), min_size=1, max_size=30))
def test_old_buckets_become_longer_and_nothing_is_lost_or_counted_twice(moments: list[tuple[int, int]]) -> None:
    history, expected = History(), ServedRows()
    for age, seed in sorted(moments, reverse=True):
        at = NOW - age
        history.compact(at)
        history.add(KEY, served(seed), at)
        expected = expected.merge(served(seed))
    history.compact(NOW)

    assert_same(history.rows_since(KEY, NOW - 7 * DAY), expected)
    most = sum(-(-tier.until // tier.seconds) + 2 for tier in TIERS)
    assert len(history.versions[KEY]) <= most
    for bucket in history.versions[KEY]:
        assert bucket.end > NOW - next(tier.until for tier in TIERS if tier.seconds == bucket.seconds)


@pytest.mark.parametrize(("window", "longest"), [(2 * HOUR, 300), (DAY, HOUR), (5 * DAY, 6 * HOUR)])
def test_a_window_has_the_rows_since_its_start_and_at_most_one_bucket_more(window: int, longest: int) -> None:
    history = History()
    ages = [*range(0, 7 * DAY, 1800)][::-1]
    for age in ages:
        history.add(KEY, ServedRows(1), NOW - age)
        history.compact(NOW - age)

    found = history.rows_since(KEY, NOW - window).predicted

    assert sum(age < window for age in ages) <= found <= sum(age < window + longest for age in ages)


def test_what_has_aged_out_is_removed() -> None:
    history = History()
    history.add(KEY, served(), NOW)
    history.count("crop-yield", Requests(3, 1, 9), NOW)

    history.compact(NOW + 4 * HOUR)
    assert history.requests == {}
    history.compact(NOW + 3 * DAY)
    history.compact(NOW + 8 * DAY)

    assert history.versions == {}


def test_a_history_is_bounded_in_versions_models_and_bytes() -> None:
    history = History()
    for number in range(bounds.MAX_VERSIONS + 5):
        history.add(KEY._replace(version=number), served(), NOW)
    for number in range(bounds.MAX_MODELS + 5):
        history.count(f"model-{number}", Requests(1), NOW)
        history.count_splits({f"model-{number}": SplitCounts("1")})
    assert [key.version for key in history.versions] == [*range(5, bounds.MAX_VERSIONS + 5)]
    assert len(history.requests) == len(history.splits) == bounds.MAX_MODELS

    wide = served(columns=100)
    for step in range(70):
        history.add(KEY, wide, NOW + step * 300)
    history.add(KEY._replace(version=2), wide, NOW + 70 * 300)
    history._bound_bytes()

    size = sum(each.nbytes for buckets in history.versions.values() for each in buckets.values())
    assert size <= bounds.MAX_BYTES
    # The newest summaries keep their cross products.
    pairs = [each.moments.has_pairs for each in history.versions[KEY].values() if each.moments]
    assert pairs == sorted(pairs)
    assert pairs[-1]
    assert len(encode(history)) < bounds.MAX_BYTES


@given(st.booleans(), st.integers(2, 4), st.integers(0, 5))
def test_a_history_survives_its_bytes(pairs: bool, columns: int, seed: int) -> None:
    history = History()
    history.add(KEY, served(seed, columns=columns, pairs=pairs), NOW)
    history.add(KEY, ServedRows(7), NOW + 300)
    history.count("crop-yield", Requests(3, 1, 9), NOW)
    differences = Differences.of(np.array([1.0, -3.0, np.nan]))
    history.count_splits({"crop-yield": SplitCounts("1", {1: Answered(2, 7)}, 2, 1, 4, {"apples": differences})})

    found = decode(encode(history))

    assert found.splits == history.splits
    assert found.requests == history.requests
    assert list(found.versions[KEY]) == list(history.versions[KEY])
    assert_same(found.rows_since(KEY, 0), history.rows_since(KEY, 0))


@given(st.data())
def test_foreign_and_damaged_bytes_are_refused(data: st.DataObject) -> None:
    history = History()
    history.add(KEY, served(), NOW)
    history.count("crop-yield", Requests(3, 1, 9), NOW)
    content = bytearray(encode(history))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))

    for damaged in (bytes(content), bytes(content[:cut]), b"", b"\x80", b"{}", data.draw(st.binary(max_size=40))):
        try:
            found = decode(damaged)
        except NotAHistory:
            continue
        # A changed number cannot be noticed. The result can be used like any other.
        for key in found.versions:
            found.rows_since(key, 0)


def test_numbers_that_are_not_finite_and_columns_that_disagree_are_refused() -> None:
    for damaged in (
        ServedRows(5, Moments(5, np.array([np.nan]), np.ones((1, 1)), np.zeros(1), np.ones(1), 5.0, 5.0)),
        ServedRows(5, Moments(5, np.zeros(2), -np.eye(2), np.zeros(2), np.ones(2), 5.0, 5.0)),
        ServedRows(5, Moments(5, np.zeros(2), np.eye(2), np.zeros(3), np.ones(2), 5.0, 5.0)),
    ):
        history = History()
        history.add(KEY, damaged, NOW)
        with pytest.raises(NotAHistory):
            decode(encode(history))

    history = History()
    history.add(KEY, served(columns=2), NOW)
    history.add(KEY, served(columns=3), NOW + 300)
    with pytest.raises(NotAHistory):
        decode(encode(history))


def test_the_counts_of_a_split_are_those_of_the_last_split_of_the_model_over_all_workers() -> None:
    def counts(identity: str, difference: float) -> History:
        history = History()
        targets = {"apples": Differences.of(np.array([difference]))}
        history.count_splits({"crop-yield": SplitCounts(identity, {1: Answered(1, 2)}, compared=1, targets=targets)})
        return history

    total = History()
    for each in (counts("1", 9.0), counts("2", 1.0), counts("2", -3.0), counts("1", 9.0)):
        total.include(each, NOW)

    found = total.splits["crop-yield"]
    assert (found.identity, found.versions, found.compared) == ("2", {1: Answered(2, 4)}, 2)
    assert found.targets["apples"] == Differences(2, -2.0, 4.0, 3.0)
