"""Changes that one of two worker processes makes take effect in both."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from raw_http import half_sent
from service import INPUTS, MAX_SECONDS, NO_TLS, NOTEBOOK, Service
from yields import publish_yields

BODY = json.dumps({**NOTEBOOK, "promote": "never"}).encode()
KEY = {"content-type": "application/json", "idempotency-key": "harvest"}
ENDLESS = {"kind": "gradient_descent", "epochs": 10_000_000, "learning_rate": 1e-9}
NAMES: dict[str, Any] = {"feature_names": ["temp", "rainfall", "humidity"], "target_names": ["apples", "oranges"]}
ROW = {"instances": [[75, 63, 44]]}
TYPO_IS_GONE = 'There is no model "typo". GET /models lists the models.'


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("workers"), workers=2, transfer_grace="600").start()
    yield running
    running.stop()


@pytest.fixture
def either(pair: Service) -> Iterator[httpx.Client]:
    """A client whose requests go to any worker."""
    with httpx.Client(base_url=pair.url, headers={"connection": "close"}, timeout=MAX_SECONDS, verify=NO_TLS) as client:
        yield client


def served(client: httpx.Client, path: str, **headers: str) -> int:
    answer = client.post(path, json=ROW, headers=headers)
    assert answer.status_code == 200, answer.text
    return int(answer.headers["linserve-version"])


def test_a_key_is_refused_while_its_first_request_is_being_received(pair: Service, either: httpx.Client) -> None:
    with half_sent(pair, KEY, BODY) as first:
        for _ in range(8):  # both workers
            refused = either.post("/train", content=BODY, headers=KEY)
            assert refused.status_code == 409, refused.text
            assert "is being received" in refused.json()["detail"]
        assert either.post("/train", content=BODY, headers={**KEY, "idempotency-key": "other"}).status_code == 202
        first.sendall(BODY[len(BODY) // 2 :])
        assert first.recv(1000).startswith(b"HTTP/1.1 202")
    repeated = either.post("/train", content=BODY, headers={**KEY, "prefer": "wait=60"})
    assert pair.ended_job(repeated)["status"] == "succeeded"
    another = json.dumps({**NOTEBOOK, "instances": INPUTS[::-1]}).encode()
    assert either.post("/train", content=another, headers=KEY).status_code == 422
    pair.finish_jobs()


def test_a_deleted_model_is_gone_in_every_worker_and_its_numbers_are_not_used_again(
    pair: Service, either: httpx.Client
) -> None:
    def trained() -> int:
        return int(pair.train(**NOTEBOOK, **NAMES, model="typo")["version"])

    assert [trained(), trained()] == [1, 2]
    for _ in range(8):  # both workers have it in memory
        assert served(either, "/models/typo/predict") == 2
        assert served(either, "/models/typo/versions/1/predict") == 1
    assert either.delete("/models/typo", headers={"if-match": "*"}).status_code == 204
    for _ in range(8):
        for path in ("/models/typo/predict", "/models/typo/versions/1/predict"):
            answer = either.post(path, json=ROW)
            assert (answer.status_code, answer.json()["detail"]) == (404, TYPO_IS_GONE)
    again = either.delete("/models/typo", headers={"if-match": "*"})
    assert (again.status_code, again.json()["detail"]) == (404, TYPO_IS_GONE)
    assert "typo" not in [item["model"] for item in either.get("/models").json()["items"]]

    assert trained() == 3
    assert either.get("/models/typo").json()["versions"] == [3]
    assert either.get("/models/typo/versions/2").status_code == 404


def test_every_worker_predicts_with_the_version_that_has_the_alias_until_it_moves(
    pair: Service, either: httpx.Client
) -> None:
    for _ in range(3):
        publish_yields(pair.models, "named")
    aliases = "/models/named/aliases"
    for version in (1, 2):
        answer = pair.client.put(f"{aliases}/champion", json={"version": version})
        assert answer.json() == {"model": "named", "alias": "champion", "version": version}
        assert [served(either, f"{aliases}/champion/predict") for _ in range(6)] == [version] * 6
        direct = either.post(f"/models/named/versions/{version}/predict", json=ROW)
        assert either.post(f"{aliases}/champion/predict", json=ROW).content == direct.content
    assert served(either, f"{aliases}/current/predict") == 3
    assert either.get(aliases).json() == {"model": "named", "current": 3, "aliases": {"champion": 2}}


def test_every_worker_follows_a_split_on_its_next_request(pair: Service, either: httpx.Client) -> None:
    for _ in range(2):
        publish_yields(pair.models, "divided")
    traffic, predict = "/models/divided/traffic", "/models/divided/predict"
    for _ in range(3):
        assert pair.client.put(traffic, json={"1": 100}).status_code == 200
        assert [served(either, predict) for _ in range(6)] == [1] * 6
        assert pair.client.delete(traffic).status_code == 204
        assert [served(either, predict) for _ in range(6)] == [2] * 6

    assert pair.client.put(traffic, json={"1": 50, "2": 50}).status_code == 200
    first = {key: served(pair.client, predict, **{"linserve-sticky": key}) for key in map(str, range(8))}
    assert set(first.values()) == {1, 2}
    for key, version in first.items():
        assert [served(either, predict, **{"linserve-sticky": key}) for _ in range(2)] == [version] * 2
    assert len({served(either, predict) for _ in range(6)}) == 1  # by the address


def test_every_worker_matches_the_outcomes_of_predictions_of_any(pair: Service, either: httpx.Client) -> None:
    publish_yields(pair.models, "observed")
    path = "/models/observed"
    ids = [f"id {number}" for number in range(8)]
    for name in ids:
        answer = either.post(f"{path}/predict", json={**ROW, "prediction_id": name})
        assert (answer.status_code, answer.json()["recorded"]) == (200, True), answer.text
    for name in ids:
        outcome = [{"prediction_id": name, "apples": 50.0}]
        assert either.post(f"{path}/actuals", json=outcome).json()["versions"] == {"1": 1}
    for _ in range(6):
        (version,) = either.get(f"{path}/actuals").json()["versions"]
        assert (version["recorded"], version["matched"], version["waiting"]) == (8, 8, 0)


def connections(service: Service, job_id: str, last: str | None = None) -> Iterator[list[dict[str, Any]]]:
    """Connect and reconnect as a browser's EventSource does. Yield the events of each connection."""
    with httpx.Client(base_url=service.url, timeout=MAX_SECONDS, verify=NO_TLS) as client:
        while True:
            headers = {"accept": "text/event-stream", "connection": "close"}  # any worker may answer
            headers |= {} if last is None else {"last-event-id": last}
            with client.stream("GET", f"/jobs/{job_id}/events", headers=headers) as answer:
                if answer.status_code != 200:
                    assert (answer.status_code, answer.read()) == (204, b"")
                    return
                events: list[dict[str, Any]] = []
                fields: dict[str, str] = {}
                for line in answer.iter_lines():
                    if not line and "data" in fields:
                        last = fields["id"]
                        events.append({"id": last, "job": json.loads(fields["data"])})
                        fields = {}
                        if len(events) == 1 and not events[0]["job"]["finished_at"]:
                            break  # the connection is lost
                    elif line:
                        name, _, value = line.partition(": ")
                        fields[name] = value
            yield events


@pytest.mark.slow
def test_a_reconnecting_client_gets_new_events_and_stops_after_the_end(pair: Service) -> None:
    job_id = pair.submit(**NOTEBOOK, solver=ENDLESS)
    connected = connections(pair, job_id)
    found = [*next(connected), *next(connected)]
    pair.client.post(f"/jobs/{job_id}/cancel")
    for events in connected:
        found += events
    ids = [event["id"] for event in found]
    assert len(ids) == len(set(ids))
    assert found[-1]["job"] == pair.job(job_id)
    assert found[-1]["job"]["status"] == "cancelled"


def test_a_client_that_follows_an_ended_job_gets_its_end_once(pair: Service) -> None:
    job = pair.train(**NOTEBOOK, promote="never")
    (events,) = connections(pair, job["id"])
    assert [event["job"] for event in events] == [job]
    assert list(connections(pair, job["id"], events[0]["id"])) == []
    assert list(connections(pair, job["id"], "an id of before")) == [events]
