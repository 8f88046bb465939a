"""Drift, events of models and gauges over HTTP."""

import contextlib
import hashlib
import json
import os
import queue
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
import pytest
from mixed import publish
from prometheus_client.parser import text_string_to_metric_families
from service import INPUTS, MAX_SECONDS, NO_TLS, Service, wait_for
from trained import model_of, version_of

from app.registry.folder.publisher import FolderPublisher
from app.web.model_gauges import GAUGES, MAX_NAMES

HOSTILE = ('price"}\n# EVIL', "<script>alert(1)</script>", "näme\\", "x" * 190 + "1", "x" * 190 + "2")
KEY = "key-of-tests"


def key_line(secret: str, scopes: str) -> str:
    return f"{secret} {scopes} {hashlib.sha256(secret.encode()).hexdigest()}\n"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with keys, and with a model of hostile names."""
    folder = tmp_path_factory.mktemp("monitoring")
    (folder / "keys").write_text(key_line(KEY, "admin,predict,train") + key_line("other", "predict"))
    service = Service(folder, trainer_mode="external", api_keys_file=str(folder / "keys"))
    random = np.random.default_rng(0)
    x = random.normal(size=(200, MAX_NAMES + 20))
    version = version_of(model_of(x, x[:, :1] + random.normal(size=(200, 1))))
    names = (*HOSTILE, *(f"column {index}" for index in range(len(HOSTILE), x.shape[1])))
    model = replace(version.model, features=names, targets=("net\nprice",))
    publish(service.models, replace(version, model=model, card=replace(version.card, features=names)), "hostile")
    service.start()
    service.client.headers["x-api-key"] = KEY
    yield service
    service.stop()


def drift_of(service: Service, model: str = "crop-yield", **parameters: Any) -> dict[str, Any]:
    response = service.client.get(f"/models/{model}/drift", params=parameters)
    assert response.status_code == httpx.codes.OK, response.text
    found: dict[str, Any] = response.json()
    return found


def gauges_of(service: Service) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = service.client.get("/metrics").text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("linserve_")
    }


def test_drift_counts_the_rows_of_every_way_to_predict(own: Service) -> None:
    before = drift_of(own)["predicted_rows"]
    own.predict(*INPUTS[:2])  # the fast path
    own.predict(*INPUTS[:3], interval=0.9)  # the route
    csv = "temp,rainfall,humidity\n" + "\n".join(",".join(map(str, row)) for row in INPUTS[:4])
    own.client.post("/models/crop-yield/predict", content=csv, headers={"content-type": "text/csv"})
    rows = [dict(zip(("temp", "rainfall", "humidity"), row, strict=True)) for row in INPUTS[:5]]
    own.client.post("/models/crop-yield/versions/1/predict?missing=null", json={"instances": rows})
    gap = {"temp": None, "rainfall": 3, "humidity": 4}
    own.client.post("/predict", json={"instances": [gap, rows[0]], "missing": "null"})

    found = drift_of(own)

    assert found["predicted_rows"] - before == 2 + 3 + 4 + 5 + 1
    share = 1 / (found["predicted_rows"] + 1)
    assert found["missing"] == {"temp": {"gaps": 1, "unseen": 0, "training_share": 0.0, "served_share": share}}
    assert found["columns"]["temp"]["minimum"] == 69
    assert found["model"] == "crop-yield"
    assert found["window_seconds"] == 86_400
    assert drift_of(own, version=1, window="7d")["rows"] == found["rows"]


def test_rows_of_another_kind_than_in_training_are_reported_as_drifted(own: Service) -> None:
    for _ in range(20):
        own.predict(*[[row[0] + 60, row[1], row[2]] for row in INPUTS])

    found = drift_of(own)

    assert found["verdict"] == "drifted"
    assert "temp" in found["drifted"]
    assert found["columns"]["temp"]["standardised_mean_difference"] > 1
    assert found["extrapolated"] > 0.5
    assert own.client.get("/metrics").status_code == httpx.codes.OK


@pytest.mark.parametrize("window", ["", "24", "4m", "8d", "-1h", "1e3h", "24h ", "٢h", "99999999999d"])
def test_a_window_of_another_form_is_refused(own: Service, window: str) -> None:
    response = own.client.get("/models/crop-yield/drift", params={"window": window})

    assert response.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert response.json()["errors"][0]["parameter"] == "window"
    assert "24h" in response.json()["detail"]


def test_drift_of_what_does_not_exist_is_not_found(own: Service) -> None:
    for path in ("/models/nobody/drift", "/models/crop-yield/drift?version=99", "/models/nobody/events"):
        assert own.client.get(path).status_code == httpx.codes.NOT_FOUND
    refused = own.client.get("/models/crop-yield/drift", headers={"x-api-key": "wrong"})
    assert refused.status_code == httpx.codes.UNAUTHORIZED


class Follower:
    """Follows a model in a thread, for a block."""

    def __init__(self, service: Service, model: str = "crop-yield", last: str | None = None, **query: Any) -> None:
        self.events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        headers = {"x-api-key": service.client.headers["x-api-key"]} | ({"last-event-id": last} if last else {})
        self._client = httpx.Client(base_url=service.url, timeout=60, headers=headers, verify=NO_TLS)
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._follow, args=(f"/models/{model}/events", query))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._client.close()

    def _follow(self, path: str, query: dict[str, Any]) -> None:
        with contextlib.suppress(httpx.HTTPError), self._client.stream("GET", path, params=query) as response:
            self._socket = response.extensions["network_stream"].get_extra_info("socket")
            fields: dict[str, str] = {}
            for line in response.iter_lines():
                name, _, value = line.partition(": ")
                if line:
                    fields[name] = value
                elif "data" in fields:
                    self.events.put({**fields, "data": json.loads(fields["data"])})
                    fields = {}
        self.events.put(None)

    def next(self, kind: str | None = None) -> dict[str, Any]:
        """Return the next event, of this kind if one is given."""
        while True:
            found = self.events.get(timeout=MAX_SECONDS)
            assert found is not None, "The stream has ended."
            if kind in (None, found["event"]):
                return found

    def until(self, kind: str, **values: Any) -> dict[str, Any]:
        """Return the first event of this kind whose data have these values. Others may precede it."""
        while True:
            found = self.next(kind)
            if values.items() <= found["data"].items():
                return found

    def wait_for_end(self) -> None:
        while self.events.get(timeout=MAX_SECONDS) is not None:
            pass

    def first(self) -> dict[str, dict[str, Any]]:
        """Return the first event of each kind."""
        return {event["event"]: event for event in (self.next() for _ in range(3))}


def test_followers_get_each_kind_at_first_and_then_what_changes(own: Service) -> None:
    registry = FolderPublisher(own.models)
    with Follower(own) as follower:
        first = follower.first()
        assert set(first) == {"versions", "drift", "outcomes"}
        assert first["versions"]["data"] == {"model": "crop-yield", "current": 1, "versions": [1]}
        assert first["outcomes"]["data"]["versions"] == {}

        own.predict([1e6, 2e6, 3e6])
        follower.until("drift", predicted_rows=first["drift"]["data"]["predicted_rows"] + 1)
        # Another process publishes and promotes.
        current = registry.current("crop-yield")
        registry.publish(replace(current.card, upload=None), current.model, promote=True)
        follower.until("versions", model="crop-yield", current=2, versions=[1, 2])
        registry.promote("crop-yield", 1)
        back = follower.until("versions", current=1)

    own.predict([1e6, 2e6, 3e6])
    # A client that reconnects gets what has changed since, and one with a foreign id gets everything.
    with Follower(own, last=back["id"]) as again:
        assert again.next()["event"] == "drift"
    for foreign in ("x", f"{back['id']}.00", "-.-.-"):
        with Follower(own, last=foreign, events=3) as stranger:
            assert len(stranger.first()) == 3


def test_a_stream_ends_after_the_number_of_events_that_was_asked_for(own: Service) -> None:
    with Follower(own, events=1) as follower:
        assert follower.next()["event"] == "versions"
        assert follower.events.get(timeout=MAX_SECONDS) is None
    assert own.client.get("/models/crop-yield/events?events=0").status_code == httpx.codes.UNPROCESSABLE_ENTITY


def test_a_stream_ends_when_its_model_is_deleted(own: Service) -> None:
    registry = FolderPublisher(own.models)
    current = registry.current("crop-yield")
    registry.publish(replace(current.card, model="short-lived", upload=None), current.model, promote=True)
    with Follower(own, "short-lived") as follower:
        follower.first()

        registry.delete_model("short-lived")

        follower.wait_for_end()


def test_a_stream_ends_when_its_key_is_revoked(own: Service) -> None:
    keys = own.state.parent / "keys"
    before = keys.read_text()
    with Follower(own) as follower:
        follower.first()

        keys.write_text(key_line("other", "predict"))
        try:
            follower.wait_for_end()
        finally:
            keys.write_text(before)
            wait_for(lambda: own.client.get("/models").status_code == httpx.codes.OK)


def test_gauges_are_bounded_and_hold_hostile_names(own: Service) -> None:
    x = np.random.default_rng(1).normal(size=(150, MAX_NAMES + 20))
    response = own.client.post("/models/hostile/predict", json={"instances": x.tolist()})
    assert response.status_code == httpx.codes.OK, response.text
    for name in ("nobody", "%3Cscript%3E", "a%0Ab"):
        own.client.post(f"/models/{name}/predict", json={"instances": []})
    own.client.post("/models/hostile/predict", json={"instances": [["x"]]})
    drift_of(own, "hostile")  # flushes what this worker has seen
    failed = "linserve_model_requests_total", (("model", "hostile"), ("result", "failed"))

    wait_for(lambda: {("linserve_drift_rows", (("model", "hostile"),)), failed} <= gauges_of(own).keys())
    found = gauges_of(own)

    differences = [dict(labels) for name, labels in found if name == "linserve_drift_mean_difference"]
    of_hostile = [labels["column"] for labels in differences if labels["model"] == "hostile"]
    assert len(of_hostile) == MAX_NAMES
    assert {'price"}\n# EVIL', "<script>alert(1)</script>", "näme\\"} < set(of_hostile)
    assert max(map(len, of_hostile)) <= 100
    assert {dict(labels).get("model") for _, labels in found} - {None} == {"crop-yield", "hostile"}
    assert found["linserve_model_requests_total", (("model", "hostile"), ("result", "answered"))] == 1
    assert found[failed] == 1  # counted after the response
    assert found["linserve_model_rows_total", (("model", "hostile"),)] == 150
    assert found["linserve_model_version", (("model", "crop-yield"),)] == 1
    exported = own.client.get("/metrics").text
    assert all(f"# TYPE {name} gauge" in exported for name in GAUGES)


def test_a_restart_keeps_what_was_served_and_streams_end_at_a_stop(own: Service) -> None:
    before = drift_of(own)
    with Follower(own) as follower:
        follower.first()

        own.stop()

        follower.wait_for_end()
    own.start()
    own.client.headers["x-api-key"] = KEY

    after = drift_of(own)
    assert after["predicted_rows"] == before["predicted_rows"]
    assert after["columns"]["temp"]["served_mean"] == pytest.approx(before["columns"]["temp"]["served_mean"])
    assert own.log.read_text().count("Traceback") == 0


@pytest.mark.slow
def test_workers_are_summed_and_one_that_is_killed_loses_at_most_its_last_interval(tmp_path: Path) -> None:
    service = Service(tmp_path, workers=2, trainer_mode="external").start()
    try:
        one, other = service.web_workers()

        def drift() -> dict[str, Any]:
            """Return the drift as any worker knows it."""
            with httpx.Client(base_url=service.url, timeout=MAX_SECONDS, verify=NO_TLS) as client:
                found: dict[str, Any] = client.get("/models/crop-yield/drift").json()
                return found

        def both_know_all_rows() -> bool:
            found = []
            for worker in (one, other):
                with service.only(worker):
                    found.append(drift()["rows"])
            return found == [60 * len(INPUTS)] * 2

        for _ in range(60):
            with httpx.Client(base_url=service.url, timeout=MAX_SECONDS, verify=NO_TLS) as client:
                client.post("/predict", json={"instances": INPUTS})
        wait_for(both_know_all_rows)  # A worker knows the rows of the other one once that has written them.
        for _ in range(5):
            found = drift()
            assert found["rows"] == found["predicted_rows"] == 60 * len(INPUTS)
        os.kill(one, signal.SIGKILL)
        wait_for(lambda: len(service.web_workers()) == 2 and one not in service.web_workers())

        for _ in range(5):
            assert drift()["rows"] == 60 * len(INPUTS)
        assert other in service.web_workers()
    finally:
        service.stop()
