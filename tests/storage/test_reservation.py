import asyncio
import gc

import pytest

from app.errors import BodyTooLarge, WorkerBusy
from app.storage.memory_budget import (
    LARGE_BODY,
    MAX_SLOTS,
    REQUESTS_SHARE,
    LargeBodyLimiter,
    MemoryBudget,
    Reservation,
    share_of,
)

TOTAL = 16 << 20


class Held:
    """An object that is collected as soon as nothing refers to it."""


def free_bytes(budget: MemoryBudget) -> int:
    """Return the bytes that requests can still reserve."""
    limit = share_of(TOTAL, REQUESTS_SHARE)
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if budget.try_reserve(middle, limit):
            budget.free(middle)
            low = middle
        else:
            high = middle - 1
    return low


def test_a_request_releases_all_it_has_reserved_and_releases_nothing_twice() -> None:
    budget = MemoryBudget(TOTAL)
    before = free_bytes(budget)
    request = Reservation(budget)
    request.reserve(1000)
    assert request.try_reserve(500)
    with request.reserved(10):
        assert free_bytes(budget) == before - 1510
    request.release(200)
    assert free_bytes(budget) == before - 1300
    request.release_all()
    request.release(1300)
    request.release_all()
    assert free_bytes(budget) == before


def test_large_requests_leave_room_for_small_ones() -> None:
    budget = MemoryBudget(TOTAL)
    large, other = Reservation(budget), Reservation(budget)
    large.reserve(12 << 20)
    with pytest.raises(WorkerBusy, match="Send it again later"):
        other.reserve(LARGE_BODY + 1)
    assert not other.try_reserve(1)
    other.reserve(LARGE_BODY)
    with pytest.raises(BodyTooLarge, match="a request may have"):
        large.reserve(1 << 20)


def test_an_object_counts_until_it_is_collected() -> None:
    budget = MemoryBudget(TOTAL)
    before = free_bytes(budget)
    one, other = Held(), Held()
    one.cycle = one  # type: ignore[attr-defined]
    budget.track(one, 1000)
    budget.track(other, 100)
    assert free_bytes(budget) == before - 1100
    del one, other
    assert free_bytes(budget) == before - 1000
    gc.collect()
    assert free_bytes(budget) == before


def test_a_version_that_would_never_fit_is_let_in_alone() -> None:
    budget = MemoryBudget(TOTAL)
    budget.check_room(10 * TOTAL)
    version = Held()
    budget.track(version, 10 * TOTAL)
    with pytest.raises(WorkerBusy, match="Other versions"):
        budget.check_room(1)
    del version
    budget.check_room(1)


def test_no_more_large_requests_are_processed_at_a_time_than_there_are_slots() -> None:
    async def use_slots() -> int:
        limiter = LargeBodyLimiter()
        active = most = 0

        async def use() -> None:
            nonlocal active, most
            async with limiter.slot():
                active += 1
                most = max(most, active)
                await asyncio.sleep(0)
                active -= 1

        await asyncio.gather(*(use() for _ in range(10)))
        return most

    assert asyncio.run(use_slots()) == MAX_SLOTS
