"""The deadlines of a connection, with a fake time."""

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.server.clocks import LINGER_SECONDS, MIN_BYTES_PER_SECOND, Awaiting, RequestClock, TransferClock

GRACE = 20.0
PAUSES = st.floats(0, 60, allow_nan=False)
STEPS = st.lists(st.tuples(PAUSES, st.integers(0, 10**6)), max_size=30)  # seconds, and bytes that arrive in them


@pytest.mark.parametrize(
    ("awaiting", "limit"), [(Awaiting.REQUEST, 5.0), (Awaiting.HEADERS, 10.0), (Awaiting.END, LINGER_SECONDS)]
)
@given(start=st.floats(0, 1e6), wait=PAUSES)
def test_wait_is_overdue_after_its_limit(awaiting: Awaiting, limit: float, start: float, wait: float) -> None:
    clock = RequestClock(keep_alive=5, header_timeout=10, since=0)
    clock.start(awaiting, start)
    now = start + wait
    assert clock.is_overdue(now) == (now - start > limit)


@pytest.mark.parametrize("awaiting", [Awaiting.BODY, Awaiting.NOTHING])
def test_bodies_and_responses_have_no_absolute_deadline(awaiting: Awaiting) -> None:
    clock = RequestClock(keep_alive=5, header_timeout=10, since=0, awaiting=awaiting)
    assert not clock.is_overdue(1e9)


@given(st.lists(PAUSES, max_size=20))
def test_a_deadline_does_not_move_while_the_client_sends_its_headers(pauses: list[float]) -> None:
    clock = RequestClock(keep_alive=5, header_timeout=10, since=0)
    overdue = [clock.is_overdue(now) for now in accumulate(pauses)]
    assert overdue == sorted(overdue)
    assert overdue == [now > 10 for now in accumulate(pauses)]


def run(clock: TransferClock, steps: list[tuple[float, int]]) -> tuple[float, bool]:
    """Start a transfer and advance it. Return the time, and whether it was ever late."""
    now, was_late = 0.0, False
    clock.restart(now)
    for seconds, count in steps:
        now += seconds
        clock.advance(now, count)
        was_late |= clock.is_late(now)
    return now, was_late


@given(STEPS)
def test_transfer_at_the_lowest_rate_is_never_late(steps: list[tuple[float, int]]) -> None:
    paced = [(count / MIN_BYTES_PER_SECOND, count) for _, count in steps]
    assert not run(TransferClock(GRACE), paced)[1]


@given(STEPS)
def test_transfer_that_stops_is_late_after_the_grace_period_however_fast_it_was(steps: list[tuple[float, int]]) -> None:
    clock = TransferClock(GRACE)
    now, _ = run(clock, steps)
    assert clock.is_late(now + GRACE + 0.001)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=50), st.floats(0.1, 0.9))
def test_transfer_below_the_lowest_rate_is_late_once_it_is_behind_by_the_grace_period(
    pauses: list[float], share: float
) -> None:
    steps = [(seconds, int(share * MIN_BYTES_PER_SECOND * seconds)) for seconds in pauses]
    behind = sum(seconds - count / MIN_BYTES_PER_SECOND for seconds, count in steps)
    assert run(TransferClock(behind + 0.001), steps)[1] is False
    assert run(TransferClock(behind - 0.001), steps)[1] is True


@given(STEPS, STEPS)
def test_a_new_transfer_owes_nothing_of_the_one_before(
    before: list[tuple[float, int]], after: list[tuple[float, int]]
) -> None:
    used = TransferClock(GRACE)
    run(used, before)
    used.restart(None)
    assert not used.is_late(1e9)  # Its time does not count yet.
    assert run(used, after) == run(TransferClock(GRACE), after)


@given(st.lists(st.tuples(PAUSES, PAUSES), max_size=20), st.integers(0, 200_000))
def test_only_the_time_between_start_and_stop_counts(stalls: list[tuple[float, float]], count: int) -> None:
    clock = TransferClock(GRACE)
    now = behind = 0.0
    for idle, stalled in stalls:
        now += idle
        clock.start(now)
        begun = now
        now += stalled
        assert clock.is_late(now) == (behind + (now - begun) > GRACE)
        clock.advance(now, count)
        clock.stop()
        behind = max(0.0, behind + now - begun - count / MIN_BYTES_PER_SECOND)
        assert clock.is_late(now + 1e6) == (behind > GRACE)
