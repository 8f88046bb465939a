"""The loop of a trainer: what it has to do while its other work waits for the database or the store."""

import threading
from types import SimpleNamespace
from typing import Any

from service import MAX_SECONDS

from app.jobs.worker import run_worker


def test_a_trainer_stops_and_checks_its_lease_while_its_tidying_up_waits_for_the_store() -> None:
    stop, waits, reachable, checked = (threading.Event() for _ in range(4))
    ends: list[str] = []

    def tidy_up() -> None:
        waits.set()
        reachable.wait(MAX_SECONDS)

    def check() -> None:
        if waits.is_set():
            checked.set()
            stop.set()

    def nothing(*_: Any) -> None:
        pass

    worker: Any = SimpleNamespace(
        store=SimpleNamespace(files={}, open=nothing, keep_polling=nothing),
        lease=SimpleNamespace(claim_seconds=0.0, announce=nothing, check=check, release=lambda: ends.append("lease")),
        tidy_up=tidy_up,
        take_over=nothing,
        stop=lambda: ends.append("worker"),
    )
    loop = threading.Thread(target=run_worker, args=(worker, stop), daemon=True)
    loop.start()
    in_time = checked.wait(MAX_SECONDS / 3)
    reachable.set()
    loop.join(MAX_SECONDS)
    assert in_time
    assert ends == ["worker", "lease"]
