from pathlib import Path

import pytest
from service import INPUTS, Service

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


def test_plain_answers_carry_nothing_that_was_not_asked_for(service: Service) -> None:
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


def test_an_interval_that_theory_does_not_give_is_refused_in_a_field(service: Service) -> None:
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


def test_a_large_batch_answers_row_by_row_what_single_rows_answer(service: Service) -> None:
    rows = [[70.0 + i % 30, 50.0 + i % 70, 40.0 + i % 30] for i in range(20_000)]

    answer = service.client.post("/predict", json={"instances": rows}).json()

    assert len(answer["predictions"]) == len(rows)
    for i in (0, 1, 19_999):
        assert answer["predictions"][i] == pytest.approx(service.predict(rows[i])["predictions"][0], rel=1e-14)


def test_predictions_are_counted_whichever_way_they_are_answered(tmp_path: Path) -> None:
    own = Service(tmp_path).start()
    for _ in range(3):
        own.predict([75, 63, 44])
    own.predict([75, 63, 44], [1, 2, 3], explain=True)
    text = own.client.get("/metrics").text
    assert 'linserve_requests_total{method="POST",route="/predict",status="200"} 4.0' in text
    assert "linserve_predicted_rows_total 5.0" in text
    assert 'linserve_request_seconds_count{route="/predict"} 4.0' in text
    assert (
        own.client.post("/predict", json={"instances": INPUTS}, headers={"x-request-id": "mine"}).headers[
            "x-request-id"
        ]
        == "mine"
    )
    own.stop()


def test_a_promotion_is_seen_by_the_very_next_prediction_on_the_lane(tmp_path: Path) -> None:
    own = Service(tmp_path).start()
    own.train(instances=INPUTS, targets=[[1, 2]] * len(INPUTS))
    for version in (1, 2) * 20:
        assert own.client.put("/models/crop-yield/current", json={"version": version}).status_code == 200
        assert own.predict([75, 63, 44])["version"] == version
    own.stop()


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
