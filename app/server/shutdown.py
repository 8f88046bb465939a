"""Signals that stop a worker."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def drain_on_signal(stopping: asyncio.Event, drain_seconds: float) -> Iterator[None]:
    """Set `stopping` on SIGTERM, SIGINT or SIGHUP, and pass the signal to uvicorn `drain_seconds` later.

    uvicorn then waits for open requests before it ends the lifespan. Requests that wait for something themselves have
    to know earlier, and readiness probes before the worker accepts no more requests.
    """
    loop = asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    # A closed terminal stops the service like the other signals, unless it was started to ignore that (nohup).
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        before[signal.SIGHUP] = before[signal.SIGTERM]

    def stop(number: int, frame: FrameType | None) -> None:
        handler = before[signal.Signals(number)]
        assert callable(handler)
        if drain_seconds and not stopping.is_set():
            loop.call_soon_threadsafe(loop.call_later, drain_seconds, handler, number, frame)
        else:
            handler(number, frame)
        loop.call_soon_threadsafe(stopping.set)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if number == signal.SIGHUP else handler)
