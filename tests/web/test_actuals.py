"""Predictions with an id are recorded, and their outcomes give the rolling error of the version that made them."""

import io
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from service import Service, wait_for
from threaded_service import ThreadedService
from yields import publish_yields

ROW = {"temp": 75, "rainfall": 63, "humidity": 44}
VALUES: list[float] = [75, 63, 44]
CSV = {"content-type": "text/csv"}
NOT_PRINTABLE = "Expected a string of 1 to 200 printable characters"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = ThreadedService(tmp_path_factory.mktemp("actuals"), max_instances="40").start()
    yield running
    running.stop()


def predict(
    service: Service, ids: str | list[str], *rows: list[float], model: str = "crop-yield", **options: Any
) -> Any:
    body = {"instances": list(rows) or [VALUES], "prediction_id": ids, **options}
    answer = service.client.post(f"/models/{model}/predict", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def send(service: Service, *actuals: dict[str, Any], model: str = "crop-yield", **options: Any) -> Any:
    answer = service.client.post(f"/models/{model}/actuals", json={"actuals": list(actuals), **options})
    assert answer.status_code == 200, answer.text
    return answer.json()


def rolling(service: Service, model: str = "crop-yield") -> dict[int, Any]:
    versions = service.client.get(f"/models/{model}/actuals?window=24h").json()["versions"]
    return {version["version"]: version for version in versions}


def parquet(**columns: list[Any]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def test_ids_in_every_form_are_recorded_and_matched(own: Service) -> None:
    features = {name: [value, value] for name, value in ROW.items()}
    lines = "temp,rainfall,humidity,order\n75,63,44,007\n75,63,44,t2\n"
    ndjson = b'{"temp":75,"rainfall":63,"humidity":44,"id":"n1"}\n'
    form = {"file": ("rows.csv", lines.replace("007", "f1").replace("t2", "f2"))}
    numbered = parquet(**features, key=[17, 18])
    client = own.client
    for body in (
        {"instances": [VALUES], "prediction_id": "one"},
        {"instances": [VALUES, VALUES], "prediction_id": ["two", "three"], "interval": 0.5, "explain": True},
        {"instances": [ROW | {"prediction_id": "in a row"}]},
        [ROW | {"prediction_id": "in records"}],
    ):
        answer = client.post("/predict", json=body)
        assert (answer.status_code, answer.json()["recorded"]) == (200, True), answer.text
        assert "unavailable" not in answer.json()
    tables: list[tuple[str, dict[str, Any]]] = [
        ("prediction_id=order", {"content": lines, "headers": CSV}),
        ("prediction_id=id", {"content": ndjson, "headers": {"content-type": "application/x-ndjson"}}),
        (
            "prediction_id=key&interval=0.9",
            {"content": numbered, "headers": {"content-type": "application/vnd.apache.parquet"}},
        ),
        (
            "prediction_id=id&keep=id",
            {"json": {"instances": [ROW | {"id": "j1"}]}, "headers": {"accept": "text/csv"}},
        ),
        ("", {"files": form, "data": {"prediction_id": "order"}}),
    ]
    for query, request in tables:
        answer = client.post(f"/predict?{query}", **request)
        assert (answer.status_code, answer.headers["linserve-recorded"]) == (200, "true"), answer.text
    assert client.post("/predict?prediction_id=order", content=lines, headers=CSV).text.startswith("order,apples,")

    known = "prediction_id,apples,oranges\n007,50,\nt2,50,\nn1,50,\n17,50,\n18,50,\nj1,50,\nf1,50,\nf2,50,\nx,5,\n"
    matched = client.post("/models/crop-yield/actuals", content=known, headers=CSV).json()
    assert (matched["matched"], matched["unknown"]["prediction_ids"]) == (8, ["x"])
    ids = ["one", "two", "three", "in a row", "in records"]
    outcomes = [{"prediction_id": identity, "apples": 50.0} for identity in ids]
    assert client.post("/models/crop-yield/actuals", json=outcomes).json()["versions"] == {"1": 5}
    assert client.post("/models/crop-yield/actuals", json=outcomes).json()["repeated"] == 5
    (version,) = client.get("/models/crop-yield/actuals").json()["versions"]
    assert (version["recorded"], version["matched"], version["waiting"]) == (13, 13, 0)
    assert version["targets"]["apples"]["rmse"] == pytest.approx(3.80, abs=0.005)


def test_without_ids_a_prediction_is_as_before_and_nothing_is_recorded(own: Service) -> None:
    before = own.client.get("/models/crop-yield/actuals").json()["usage"]["recorded"]
    assert set(own.predict(VALUES)) == {"model", "version", "predictions"}
    with_id = predict(own, "compared")
    assert with_id.pop("recorded") is True
    assert with_id == own.predict(VALUES)
    assert own.client.get("/models/crop-yield/actuals").json()["usage"]["recorded"] == before + 1


def test_the_error_is_that_of_the_version_that_predicted_at_the_time(own: Service) -> None:
    publish_yields(own.models, "later")
    first = predict(own, ["v1", "v1 too"], VALUES, [80, 70, 50], model="later", interval=0.95)
    assert publish_yields(own.models, "later", more_apples=30) == 2
    second = predict(own, ["v2", "v1"], VALUES, [80, 70, 50], model="later")

    low, high = first["intervals"][0][0]
    actuals = [
        {"prediction_id": "v1", "apples": high, "oranges": None},
        {"prediction_id": "v1 too", "apples": 1000.0},
        {"prediction_id": "v2", "apples": low, "oranges": 70},
    ]
    assert send(own, *actuals, model="later")["versions"] == {"1": 2, "2": 1}
    assert send(own, {"prediction_id": "v1", "oranges": 60}, model="later")["matched"] == 1

    shown = rolling(own, "later")
    errors = [first["predictions"][0][0] - high, first["predictions"][1][0] - 1000]
    assert shown[1]["targets"]["apples"]["bias"] == pytest.approx(sum(errors) / 2)
    assert shown[1]["targets"]["apples"]["interval_coverage"] == 0.5
    assert shown[1]["targets"]["oranges"]["rows"] == 1
    assert shown[2]["targets"]["apples"]["bias"] == pytest.approx(second["predictions"][0][0] - low)
    assert shown[2]["targets"]["apples"]["interval_coverage"] == 0.0


def test_another_outcome_is_named_and_replaces_only_if_asked_to(own: Service) -> None:
    predict(own, "changed")
    assert send(own, {"prediction_id": "changed", "apples": 50})["matched"] == 1
    kept = send(own, {"prediction_id": "changed", "apples": 60})
    assert (kept["matched"], kept["different"]) == (0, {"rows": 1, "prediction_ids": ["changed"]})
    assert send(own, {"prediction_id": "changed", "apples": 60}, replace=True)["replaced"] == 1
    assert send(own, {"prediction_id": "changed", "apples": 60})["repeated"] == 1


def test_hostile_ids_come_back_as_json_and_only_twenty_of_them(own: Service) -> None:
    hostile = '<script>alert("1")</script>\'; DROP TABLE linserve_predictions; -- \N{SNOWMAN}'
    assert predict(own, hostile)["recorded"] is True
    answer = send(own, {"prediction_id": hostile, "apples": 1}, *({"prediction_id": f"<{n}>"} for n in range(30)))
    assert (answer["matched"], answer["unknown"]["rows"]) == (1, 30)
    assert answer["unknown"]["prediction_ids"] == [f"<{number}>" for number in range(20)]


@pytest.mark.parametrize(
    ("ids", "place", "message"),
    [
        (7, "/prediction_id", "Expected one string for one instance"),
        ("x", "/prediction_id", "Expected one id for each instance (2), found 1."),
        (["x", "x"], "/prediction_id/1", "An earlier row has the same id."),
        (["", "x"], "/prediction_id/0", f"{NOT_PRINTABLE}, found 0."),
        (["x", "y" * 201], "/prediction_id/1", f"{NOT_PRINTABLE}, found 201."),
        (["x", "a\nb"], "/prediction_id/1", f"{NOT_PRINTABLE}; one of its characters is not."),
        (["x", None], "/prediction_id/1", f"{NOT_PRINTABLE}, found null."),
    ],
)
def test_an_id_at_fault_is_named_with_its_place(own: Service, ids: object, place: str, message: str) -> None:
    answer = own.client.post("/predict", json={"instances": [VALUES, VALUES], "prediction_id": ids})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == place
    assert answer.json()["errors"][0]["detail"].startswith(message)


@pytest.mark.parametrize(
    ("lines", "query", "place"),
    [
        ("order,temp,rainfall,humidity\na,1,2,3\na,1,2,3\n", "order", {"row": 3, "column": "order"}),
        ("order,temp,rainfall,humidity\na,1,2,3\n,1,2,3\n", "order", {"row": 3, "column": "order"}),
        ("temp,rainfall,humidity\n1,2,3\n", "temp", {"parameter": "prediction_id"}),
        ("temp,rainfall,humidity\n1,2,3\n", "order", {"row": 1}),
        (
            "order,temp,rainfall,humidity\n" + "".join(f"a{n},1,2,3\n" for n in range(41)),
            "order",
            {"row": 42, "column": "order"},
        ),
    ],
)
def test_an_id_at_fault_in_a_table_is_named_with_its_place(
    own: Service, lines: str, query: str, place: dict[str, Any]
) -> None:
    before = own.client.get("/models/crop-yield/actuals").json()["usage"]["recorded"]
    answer = own.client.post(f"/predict?prediction_id={query}", content=lines, headers=CSV)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0].items() >= place.items(), answer.text
    assert own.client.get("/models/crop-yield/actuals").json()["usage"]["recorded"] == before


@pytest.mark.parametrize(
    ("request_", "place", "message"),
    [
        (
            {"json": {"actuals": [{"prediction_id": "a", "aples": 1}]}},
            {"pointer": "/actuals/0/aples"},
            'Did you mean "apples"?',
        ),
        (
            {"json": {"actuals": [{"prediction_id": "a"}, {"apples": 1}]}},
            {"pointer": "/actuals/1"},
            "`prediction_id` is missing",
        ),
        (
            {"json": {"actuals": [{"prediction_id": 5, "apples": 1}]}},
            {"pointer": "/actuals/0/prediction_id"},
            "found a number",
        ),
        (
            {"json": {"actuals": [{"prediction_id": "a", "apples": "x"}]}},
            {"pointer": "/actuals/0/apples"},
            "found a string",
        ),
        ({"json": {"actuals": [["a", 1]]}}, {"pointer": "/actuals/0"}, "found an array"),
        ({"json": {"actuals": []}}, {"pointer": "/actuals"}, "at least 1"),
        ({"json": {"actuals": [{"prediction_id": "a", "apples": 1}] * 41}}, {"pointer": "/actuals"}, "At most 40"),
        ({"content": "prediction_id,apples\na,1\nb,x\n", "headers": CSV}, {"row": 3, "column": "apples"}, "found text"),
        (
            {"content": "prediction_id,apples\na,1\n,2\n", "headers": CSV},
            {"row": 3, "column": "prediction_id"},
            "printable",
        ),
        ({"content": "id,apples\na,1\n", "headers": CSV}, {"column": "prediction_id"}, "is missing"),
        ({"content": "prediction_id,price\na,1\n", "headers": CSV}, {"column": "price"}, "is not a target"),
    ],
)
def test_an_outcome_at_fault_is_named_with_its_place_and_nothing_is_stored(
    own: Service, request_: dict[str, Any], place: dict[str, Any], message: str
) -> None:
    predict(own, "a")
    matched = rolling(own)[1]["matched"]
    answer = own.client.post("/models/crop-yield/actuals", **request_)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0].items() >= place.items(), answer.text
    assert message in answer.json()["errors"][0]["detail"]
    assert rolling(own)[1]["matched"] == matched


def test_outcomes_of_a_deleted_model_match_no_later_model_of_its_name(own: Service) -> None:
    publish_yields(own.models, "typo")
    predict(own, "a", model="typo")
    assert own.client.delete("/models/typo", headers={"if-match": "*"}).status_code == 204
    assert own.client.get("/models/typo/actuals").status_code == 404
    assert publish_yields(own.models, "typo") == 2
    assert rolling(own, "typo") == {}
    assert send(own, {"prediction_id": "a", "apples": 1}, model="typo")["unknown"]["rows"] == 1
    assert predict(own, "a", model="typo")["recorded"] is True
    assert send(own, {"prediction_id": "a", "apples": 1}, model="typo")["versions"] == {"2": 1}


@pytest.mark.slow
def test_what_is_said_to_be_recorded_survives_a_kill_and_a_full_disk_is_not_hidden(tmp_path: Path) -> None:
    service = Service(tmp_path, trainer_mode="external").start()
    try:
        for number in range(20):
            assert predict(service, f"id {number}")["recorded"] is True
        service.kill()
        service.start()
        actuals = [{"prediction_id": f"id {number}", "apples": 50} for number in range(20)]
        assert send(service, *actuals)["matched"] == 20

        limits = resource.prlimit(service.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (1, limits[1]))
        lost = predict(service, "lost")

        def is_refused() -> bool:
            content = "id,temp,rainfall,humidity\nlost too,75,63,44\n"
            lines = service.client.post("/predict?prediction_id=id", content=content, headers=CSV)
            assert (lines.status_code, lines.headers["linserve-recorded"]) == (200, "false")
            return "does not accept it" in lines.headers["linserve-not-recorded-reason"]

        wait_for(is_refused)  # If the failure above took long, nothing is recorded for some seconds.
        resource.prlimit(service.pid, resource.RLIMIT_FSIZE, limits)

        assert lost["recorded"] is False
        assert "The database of recorded predictions does not accept it" in lost["unavailable"]["recorded"]
        assert lost["predictions"] == service.predict(VALUES)["predictions"]
        wait_for(lambda: predict(service, "again")["recorded"])
        known = [{"prediction_id": name, "apples": 1} for name in ("lost", "lost too", "again")]
        assert send(service, *known)["unknown"]["prediction_ids"] == ["lost", "lost too"]
    finally:
        service.kill()
