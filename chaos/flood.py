"""A flood of small requests that decompress to large tables, to test the memory budget of a web worker."""

import gzip
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from service import Service

from chaos.acts import Counts
from chaos.stage import Environment, Stage
from chaos.violation import demand
from chaos.watching import count, until

BUDGET = 128 << 20  # Bytes for the requests of the worker.
OVERRUN = 1.25  # Largest allowed ratio to the budget, because the memory of a request is estimated.
CLIENTS = 60  # Requests at a time.
ROWS = 1_000_000  # Rows of a table, in a request of some kilobytes.
TABLE_SECONDS = 300.0  # Longest time for a table.
ROW_SECONDS = 60.0  # Longest time for a one-row prediction during the flood.
MODEL = "narrow"
PROPER = TABLE, REFUSED, ROW = "tables", "tables refused", "one-row predictions"
LINE = b'{"a":1}\n'
HEADERS = {"content-type": "application/x-ndjson", "accept": "application/x-ndjson", "content-encoding": "gzip"}


def flood(folder: Path, environment: Environment, seconds: float) -> Counts:
    """Send tables of a million rows in small requests: the worker stays in its budget and answers other requests."""
    counts = Counts()
    large, small = gzip.compress(LINE * ROWS), gzip.compress(LINE)
    with Stage(folder, {**environment, "LINSERVE_WORKER_MEMORY": str(BUDGET)}, workers=1) as stage:
        service = stage.service
        service.train(model=MODEL, instances=[{"a": a} for a in range(5)], targets=[{"b": 2 * a} for a in range(5)])
        _ask(service, small, 1)  # loads libraries, which are not part of the budget
        before = service.reset_peak()
        ends: Counter[str] = Counter()
        with ThreadPoolExecutor(CLIENTS) as clients:
            for _ in until(seconds):
                tables = [clients.submit(_ask, service, large) for _ in range(CLIENTS)]
                while not all(future.done() for future in tables):
                    ends[_predict_one(service)] += 1
                ends.update(future.result() for future in tables)
        grown = service.memory("VmHWM") - before
        most = int(OVERRUN * BUDGET)
        demand(
            grown <= most,
            f"the worker took {grown >> 20} MiB more in a flood; its budget is {BUDGET >> 20} MiB, and the limit "
            f"{most >> 20} MiB",
        )
        faults = sorted(set(ends) - set(PROPER))
        demand(not faults, f"in a flood: {', '.join(f'{ends[fault]} times {fault}' for fault in faults)}")
        demand(ends[TABLE] > 0, "no table was predicted for")
        counts += Counter({**ends, "peak, MiB": grown >> 20})
        count(counts, stage)
    return +counts


def _ask(service: Service, body: bytes, rows: int = ROWS) -> str:
    """Request predictions for one table, and return the outcome. A 503 with Retry-After is an expected outcome."""
    url = f"{service.url}/models/{MODEL}/predict"
    try:
        with httpx.stream("POST", url, content=body, headers=HEADERS, timeout=TABLE_SECONDS) as answer:
            lines = sum(chunk.count(b"\n") for chunk in answer.iter_raw())
    except httpx.TransportError as error:
        return f"no answer to a table ({error!r})"
    if answer.status_code == httpx.codes.OK:
        return TABLE if lines == rows else f"{lines} rows of {rows}"
    if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
        return f"a table answered {answer.status_code}"
    return REFUSED if "retry-after" in answer.headers else "a table refused without Retry-After"


def _predict_one(service: Service) -> str:
    """Predict one row, and return the outcome."""
    try:
        answer = service.client.post("/predict", json={"instances": [[75, 63, 44]]}, timeout=ROW_SECONDS)
    except httpx.TransportError as error:
        return f"no answer to one row ({error!r})"
    return ROW if answer.status_code == httpx.codes.OK else f"one row answered {answer.status_code}"
