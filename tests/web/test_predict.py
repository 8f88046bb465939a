from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from service import INPUTS, Service, copy_models
from threaded_service import ThreadedService
from yields import publish_yields

from app.registry.model_card import SCHEMA
from app.registry.version_file import encode, read

ROW = {"temp": 75, "rainfall": 63, "humidity": 44}


def test_a_row_as_an_array_gives_an_array_from_version_1(service: Service) -> None:
    answer = service.predict([75, 63, 44])

    assert answer["model"] == "crop-yield"
    assert answer["version"] == 1
    assert answer["predictions"] == [[pytest.approx(53.80, abs=0.005), pytest.approx(66.81, abs=0.005)]]


def test_rows_as_objects_in_any_key_order_give_objects(service: Service) -> None:
    body = {"instances": [ROW, dict(reversed(ROW.items()))]}

    answer = service.client.post("/predict", json=body).json()

    apples, oranges = pytest.approx(53.80, abs=0.005), pytest.approx(66.81, abs=0.005)
    assert answer["predictions"] == [{"apples": apples, "oranges": oranges}] * 2


@pytest.mark.parametrize("path", ["/predict", "/models/crop-yield/predict", "/models/crop-yield/versions/1/predict"])
def test_every_way_to_the_same_version_answers_the_same(service: Service, path: str) -> None:
    body = {"instances": [[75, 63, 44], [1, 2, 3]], "interval": 0.9, "explain": True, "extrapolation": True}

    answer = service.client.post(path, json=body)

    assert answer.content == service.client.post("/predict", json=body).content


def test_a_response_has_only_what_was_requested(service: Service) -> None:
    assert set(service.predict([75, 63, 44])) == {"model", "version", "predictions"}


def test_a_wider_level_gives_a_wider_interval_around_the_same_prediction(service: Service) -> None:
    narrow = service.predict([75, 63, 44], interval=0.5)
    wide = service.predict([75, 63, 44], interval=0.99)

    for target in range(2):
        prediction = narrow["predictions"][0][target]
        (low, high), (lower, higher) = narrow["intervals"][0][target], wide["intervals"][0][target]
        assert lower < low < prediction < high < higher
        assert (low + high) / 2 == pytest.approx(prediction)


def test_contributions_and_baseline_sum_to_the_prediction(service: Service) -> None:
    answer = service.client.post("/predict", json={"instances": [ROW], "explain": True}).json()

    for target, prediction in answer["predictions"][0].items():
        contributions = answer["contributions"][0][target]
        assert set(contributions) == set(ROW)
        assert answer["baseline"][target] + sum(contributions.values()) == pytest.approx(prediction, rel=1e-12)


def test_rows_far_from_the_training_rows_are_flagged_with_the_reason(service: Service) -> None:
    near, out, odd = service.predict([75, 63, 44], [120, 63, 44], [102, 134, 37], extrapolation=True)["extrapolation"]

    assert near == {"leverage": pytest.approx(0.2313, abs=1e-4), "outside": [], "flag": False}
    assert out["outside"] == ["temp"]
    assert out["flag"]
    assert odd["outside"] == []  # each value was seen, their combination was not
    assert odd["leverage"] > 3 * 4 / 15
    assert odd["flag"]


def test_an_interval_that_does_not_exist_is_null_with_a_reason(service: Service) -> None:
    job = service.train(
        instances=[[1.0], [2.0]],
        targets=[[1.0], [2.0]],
        model="two-rows",
        feature_names=["x"],
        target_names=["y"],
    )
    assert job["status"] == "succeeded"

    answer = service.client.post("/models/two-rows/predict", json={"instances": [[3.0]], "interval": 0.95}).json()

    assert answer["predictions"] == [[pytest.approx(3.0)]]
    assert answer["intervals"] is None
    assert "2 rows" in answer["unavailable"]["intervals"]


COLLINEAR: dict[str, Any] = {
    "instances": [[float(n), 2.0 * n] for n in range(12)],
    "targets": [[float(n % 5)] for n in range(12)],
    "feature_names": ["a", "b"],
    "target_names": ["y"],
}


def test_only_rows_outside_the_span_of_the_training_rows_lack_bounds(service: Service) -> None:
    assert service.train(model="collinear", **COLLINEAR)["status"] == "succeeded"
    body = {"instances": [[3, 6], [3, 7], [4, 8], [0, 9]], "interval": 0.9, "confidence": 0.9}

    answer = service.client.post("/models/collinear/predict", json=body).json()

    assert all(isinstance(value, float) for (value,) in answer["predictions"])
    reason = "2 row(s) outside the space that the training rows span: /instances/1, 3."
    for name in ("intervals", "confidence_intervals"):
        assert [bounds for ((bounds, _),) in answer[name]].count(None) == 2
        assert answer[name][1] == answer[name][3] == [[None, None]]
        assert answer["unavailable"][name] == reason
    objects = {**body, "instances": [{"a": 3, "b": 6}, {"b": 7, "a": 3}]}
    found = service.client.post("/models/collinear/predict", json=objects).json()
    assert found["intervals"] == [{"y": answer["intervals"][0][0]}, {"y": [None, None]}]
    inside = service.client.post("/models/collinear/predict", json={**body, "instances": [[3, 6]]}).json()
    assert "unavailable" not in inside


def test_an_observation_of_a_higher_weight_has_a_narrower_interval(service: Service) -> None:
    rows = [[75.0, 63.0, 44.0]] * 3
    answer = service.predict(*rows, interval=0.9, confidence=0.9, instance_weights=[1, 4, 0.25])
    widths = [high - low for ((low, high), _) in answer["intervals"]]
    assert widths[1] < widths[0] < widths[2]
    assert answer["intervals"][0] == service.predict([75, 63, 44], interval=0.9)["intervals"][0]
    assert answer["confidence_intervals"] == [answer["confidence_intervals"][0]] * 3


@pytest.mark.parametrize(
    ("weights", "pointer"),
    [
        ([1], "/instance_weights"),
        ([1, 1, 1], "/instance_weights"),
        ([1, 0], "/instance_weights/1"),
        ([-1, 1], "/instance_weights/0"),
        ([1, "2"], "/instance_weights/1"),
        ([1, None], "/instance_weights/1"),
        ([True, 1], "/instance_weights/0"),
        ([10**400, 1], "/instance_weights/0"),
        (3, "/instance_weights"),
    ],
)
def test_wrong_instance_weights_are_rejected_with_their_places(service: Service, weights: object, pointer: str) -> None:
    body = {"instances": [[75, 63, 44]] * 2, "interval": 0.9, "instance_weights": weights}
    answer = service.client.post("/predict", json=body)
    assert answer.status_code == 422
    assert [place["pointer"] for place in answer.json()["errors"]] == [pointer]


def test_instance_weights_are_rejected_without_an_interval(service: Service) -> None:
    body = {"instances": [[75, 63, 44]], "confidence": 0.9, "instance_weights": [1]}
    answer = service.client.post("/predict", json=body)
    assert answer.status_code == 422
    assert "Add `interval`" in answer.json()["detail"]


def test_instance_weights_are_rejected_for_a_model_of_frequency_weights(tmp_path: Path) -> None:
    models = copy_models(tmp_path)
    path = models / "crop-yield" / "000001.safetensors"
    version = read(path)
    model = replace(version.model, known_statistics=replace(version.model.statistics, weight_kind="frequency"))
    path.chmod(0o644)
    path.write_bytes(encode(replace(version.card, schema=SCHEMA, weight_kind="frequency"), model))
    own = ThreadedService(tmp_path).start()
    body = {"instances": [[75, 63, 44]], "interval": 0.9, "instance_weights": [1]}
    as_json = own.client.post("/predict", json=body)
    table = own.client.post(
        "/predict?interval=0.9&instance_weights=w",
        content="temp,rainfall,humidity,w\n75,63,44,1\n",
        headers={"content-type": "text/csv"},
    )
    for answer, place in ((as_json, {"pointer": "/instance_weights"}), (table, {"parameter": "instance_weights"})):
        assert answer.status_code == 422
        assert "frequency weights" in answer.json()["detail"]
        assert place.items() <= answer.json()["errors"][0].items()
    own.stop()


def test_a_large_batch_answers_row_by_row_what_single_rows_answer(service: Service) -> None:
    rows = [[70.0 + i % 30, 50.0 + i % 70, 40.0 + i % 30] for i in range(20_000)]

    answer = service.client.post("/predict", json={"instances": rows}).json()

    assert len(answer["predictions"]) == len(rows)
    for i in (0, 1, 19_999):
        assert answer["predictions"][i] == service.predict(rows[i])["predictions"][0]


def test_predictions_of_the_fast_path_and_of_the_route_are_counted(service: Service) -> None:
    def counts() -> list[float]:
        names = (
            'linserve_requests_total{method="POST",protocol="linserve",route="/predict",status="200"}',
            "linserve_predicted_rows_total",
            'linserve_request_seconds_count{protocol="linserve",route="/predict"}',
        )
        samples = dict(line.rsplit(" ", 1) for line in service.client.get("/metrics").text.splitlines())
        return [float(samples.get(name, 0)) for name in names]

    before = counts()
    for _ in range(3):
        service.predict([75, 63, 44])
    service.predict([75, 63, 44], [1, 2, 3], explain=True)
    assert [after - earlier for after, earlier in zip(counts(), before, strict=True)] == [4, 5, 4]
    answer = service.client.post("/predict", json={"instances": INPUTS}, headers={"x-request-id": "mine"})
    assert answer.headers["x-request-id"] == "mine"


def test_a_promotion_is_seen_by_the_very_next_prediction_on_the_fast_path(tmp_path: Path) -> None:
    own = ThreadedService(tmp_path)
    publish_yields(own.models)
    own.start()
    for version in (1, 2) * 20:
        assert own.client.put("/models/crop-yield/current", json={"version": version}).status_code == 200
        assert own.predict([75, 63, 44])["version"] == version
    own.stop()


@pytest.mark.slow
def test_models_of_any_shape_and_name_predict_the_same_for_one_row_and_for_many(tmp_path: Path) -> None:
    own = Service(tmp_path).start()
    rows = [[float(n)] for n in range(200)]
    for feature, terms in (("x", None), ('size 12" \\', None), ("x", ["x", "x^2"])):
        own.train(
            instances=rows,
            targets=[[3 * x + 1, x * x] for (x,) in rows],
            feature_names=[feature],
            target_names=["a", 'b"'],
            terms=terms,
        )
        many = own.predict(*rows)["predictions"]
        assert [own.predict(row)["predictions"][0] for row in rows[:5]] == [pytest.approx(row) for row in many[:5]]
        objects = own.client.post("/predict", json={"instances": [{feature: x} for (x,) in rows]}).json()["predictions"]
        assert [list(row.values()) for row in objects] == [pytest.approx(row) for row in many]
        assert list(objects[0]) == ["a", 'b"']
    own.stop()


def test_too_many_rows_are_rejected_whatever_they_contain(service: Service) -> None:
    for row in ("{}", "[]", "[1,2,3]", '{"temp":[]}'):
        body = f'{{"instances":[{",".join([row] * 60_000)},{",".join(["[]"] * 50_000)}]}}'
        answer = service.client.post("/predict", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith("At most 100000 instances fit into one request.")
    broken = service.client.post("/predict", content=body[:-1], headers={"content-type": "application/json"})
    assert broken.status_code == 400


def test_brackets_in_kept_strings_are_not_counted_as_rows(service: Service) -> None:
    rows = [{**ROW, "[{": "[" * 60_000}, {**ROW, "[{": '{[\\"'}, {**ROW, "[{": "[" * 60_000}]
    answer = service.client.post("/predict?keep=%5B%7B", json={"instances": rows})
    assert [row["[{"] for row in answer.json()["predictions"]] == [row["[{"] for row in rows]


def train_wide(service: Service) -> None:
    """Train the model `wide`, which has one feature and 1000 targets."""
    targets = {"targets": ",".join(f"t{n}" for n in range(1000)), "model": "wide"}
    header = ",".join(["a", *(f"t{n}" for n in range(1000))])
    content = "\n".join([header, *(",".join([f"{n}", *[f"{n * n}"] * 1000]) for n in (1, 2, 3))])
    headers = {"content-type": "text/csv", "prefer": "wait=60"}
    trained = service.client.post("/train", params=targets, content=content, headers=headers)
    assert service.ended_job(trained)["status"] == "succeeded"


def test_a_response_too_long_for_memory_is_rejected_with_its_length(service: Service) -> None:
    train_wide(service)
    body = {"instances": [[1]] * 7000}
    refused = service.client.post("/models/wide/predict", json=body)
    assert refused.status_code == 422
    assert refused.json()["errors"] == [
        {
            "detail": "The answer would have about 140000000 bytes, and the limit is 134217728. Send fewer rows. "
            "POST /predict can also return a table, which may be longer.",
            "pointer": "/instances",
        }
    ]


@pytest.mark.slow
def test_long_responses_take_no_more_memory_than_is_reserved(service: Service) -> None:
    train_wide(service)
    before = service.memory("VmHWM")
    for options in ({}, {"interval": 0.9, "confidence": 0.9, "explain": True, "extrapolation": True}):
        answer = service.client.post("/models/wide/predict", json={"instances": [{"a": 1}] * 300, **options})
        assert len(answer.json()["predictions"]) == 300, answer.text[:300]
    too_many = service.client.post("/models/wide/predict", json={"instances": [[1]] * 3500, "interval": 0.9})
    assert too_many.status_code == 422

    # The rows of a table are few numbers, and those of its answer many.
    content = "a\n" + "1\n" * 30_000
    headers = {"content-type": "text/csv"}
    answer = service.client.post("/models/wide/predict?interval=0.9", content=content, headers=headers)
    assert answer.status_code == 413
    assert service.memory("VmHWM") - before < 200 << 20
