"""Readings of a model that requests cause which follow it."""

import asyncio
from contextlib import AsyncExitStack, aclosing
from typing import Any, cast

from app.web.model_watcher import ModelEvent, ModelWatcher, _State

FOLLOWERS = 200


class _Counting(ModelWatcher):
    """Reads a model of which the number of each reading is known."""

    def __init__(self) -> None:
        nothing = cast("Any", None)
        super().__init__(nothing, nothing, nothing, asyncio.Event())
        self.readings = 0

    def _read(self, model: str) -> dict[str, _State]:  # noqa: ARG002 - any model
        self.readings += 1
        number = self.readings
        return {"versions": _State(str(number), str(number))}


async def first_event(events: Any) -> ModelEvent:
    return await anext(event async for event in events if event is not None)


def test_followers_that_come_at_once_share_readings_that_began_after_they_came() -> None:
    async def follow() -> None:
        watcher = _Counting()
        async with AsyncExitStack() as following:
            before = await first_event(await following.enter_async_context(aclosing(watcher.watch("crop"))))
            others = [await following.enter_async_context(aclosing(watcher.watch("crop"))) for _ in range(FOLLOWERS)]
            known = watcher.readings
            firsts = await asyncio.gather(*map(first_event, others))
            assert before.text == "1"
            assert {int(event.text) > known for event in firsts} == {True}
            assert watcher.readings < known + FOLLOWERS // 4

    asyncio.run(follow())
