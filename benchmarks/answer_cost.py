"""The processor time of one prediction on the fast path, without a connection. `before.py` runs it in several trees.

The application is started as a server starts it, with its threads. Predictions are answered in groups, as an event loop
handles the requests of several connections in one iteration. Prints nanoseconds per prediction as JSON: of the event
loop's thread, and of all threads of the process.
"""

import asyncio
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

GROUP = 32  # predictions per iteration of the event loop
WARM_UP, BLOCKS, GROUPS = 200, 30, 100

COMMON = [(b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")]
BODIES = {
    "one row": b'{"instances": [[75.5, 63.25, 44.0]]}',
    "one row, as an object": b'{"instances": [{"temp": 75.5, "rainfall": 63.25, "humidity": 44.0}]}',
    "ten rows": b'{"instances": [' + b", ".join([b"[75.5, 63.25, 44.0]"] * 10) + b"]}",
    "1,000 rows": b'{"instances": [' + b", ".join([b"[75.5, 63.25, 44.0]"] * 1000) + b"]}",
}


async def _measure() -> dict[str, tuple[float, float]]:
    from app.main import app

    costs = {}
    async with app.router.lifespan_context(app) as state:
        services = dict(state or {})
        fast_path = services.get("fast_path") or services["fast_paths"][b"/predict"]
        for thread in threading.enumerate():
            if thread.name == "connect-jobs":  # which imports DBOS
                await asyncio.to_thread(thread.join)
        for name, body in BODIES.items():
            size = len(body)
            groups = max(1, GROUPS * 40 // size)
            loop_costs, all_costs = [], []
            for block in range(WARM_UP // groups + BLOCKS):
                own, whole = time.thread_time_ns(), time.process_time_ns()
                for _ in range(groups):
                    for _ in range(GROUP):
                        if fast_path.answer(body, b"0" * 32, time.perf_counter(), COMMON) is None:
                            raise RuntimeError("The prediction was not answered on the fast path.")
                    await asyncio.sleep(0)
                if block >= WARM_UP // groups:
                    loop_costs.append((time.thread_time_ns() - own) / groups / GROUP)
                    all_costs.append((time.process_time_ns() - whole) / groups / GROUP)
            costs[name] = (sorted(loop_costs)[len(loop_costs) // 2], sum(all_costs) / len(all_costs))
    return costs


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LINSERVE_MODELS_DIR"] = str(Path("models").absolute())
        os.environ["LINSERVE_STATE_DIR"] = folder
        os.environ["LINSERVE_TRAINER_MODE"] = "external"
        sys.stdout.write(json.dumps(asyncio.run(_measure())))


if __name__ == "__main__":
    main()
