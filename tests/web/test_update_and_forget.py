"""After an update or a forget, the version equals a fit of all the rows that it then has."""

import math
from typing import Any

import httpx
import numpy as np
import pytest
from service import INPUTS, NOTEBOOK, TARGETS, Service


@pytest.fixture(scope="module")
def own(publishing: Service) -> Service:
    """A service whose shipped version is current again."""
    answer = publishing.client.put("/models/crop-yield/current", json={"version": 1})
    assert answer.status_code == httpx.codes.OK
    return publishing


def card(service: Service, model: str = "crop-yield") -> dict[str, Any]:
    found: dict[str, Any] = service.client.get(f"/models/{model}").json()
    return found


def assert_same_model(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["rows"] == expected["rows"]
    for field in ("coefficients", "standard_errors"):
        for target in ("apples", "oranges"):
            assert found[field][target] == pytest.approx(expected[field][target], rel=1e-9)
    assert found["intercept"] == pytest.approx(expected["intercept"], rel=1e-9)
    assert found["metrics"]["mse"] == pytest.approx(expected["metrics"]["mse"], rel=1e-9)


def test_an_update_with_new_rows_only_equals_a_fit_of_all_rows(own: Service) -> None:
    own.train(**NOTEBOOK)
    expected = card(own)
    own.train(instances=INPUTS[:6], targets=TARGETS[:6])

    job = own.train(instances=INPUTS[6:], targets=TARGETS[6:], mode="update")

    assert job["status"] == "succeeded", job["error"]
    found = card(own)
    assert_same_model(found, expected)
    assert found["mode"] == "update"
    assert found["parent"] == job["version"] - 1


def test_forgetting_rows_equals_a_fit_of_the_rows_that_remain(own: Service) -> None:
    own.train(instances=INPUTS[4:], targets=TARGETS[4:])
    expected = card(own)
    own.train(**NOTEBOOK)

    job = own.train(instances=INPUTS[:4], targets=TARGETS[:4], mode="forget")

    assert job["status"] == "succeeded", job["error"]
    assert_same_model(card(own), expected)


def test_a_file_can_update_a_model(own: Service) -> None:
    own.train(**NOTEBOOK)
    expected = card(own)
    own.train(instances=INPUTS[1:], targets=TARGETS[1:])
    header = "temp,rainfall,humidity,apples,oranges\n"

    answer = own.client.post(
        "/train?mode=update",
        content=header + ",".join(map(str, INPUTS[0] + TARGETS[0])) + "\n",
        headers={"content-type": "text/csv", "prefer": "wait=60"},
    )

    job = own.ended_job(answer)
    assert job["status"] == "succeeded", job["error"]
    assert_same_model(card(own), expected)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ({"instances": [[500, 67, 43]], "targets": [[56, 70]]}, "not among"),
        ({"instances": INPUTS[:12], "targets": TARGETS[:12]}, "too few remain"),
        (NOTEBOOK, "all of them"),
    ],
    ids=["rows that were never there", "rows that the rank needs", "all rows"],
)
def test_rows_that_cannot_be_forgotten_fail_with_the_reason(own: Service, rows: dict[str, Any], reason: str) -> None:
    own.train(**NOTEBOOK)
    before = card(own)

    job = own.train(**rows, mode="forget")

    assert job["status"] == "failed"
    assert reason in job["error"]["detail"]
    assert card(own) == before


def test_a_frequency_weight_counts_as_that_number_of_rows(own: Service) -> None:
    weights = [float(1 + i % 3) for i in range(15)]
    repeated = [i for i, weight in enumerate(weights) for _ in range(int(weight))]
    own.train(instances=[INPUTS[i] for i in repeated], targets=[TARGETS[i] for i in repeated])
    expected = card(own)

    job = own.train(**NOTEBOOK, sample_weights=weights)
    from_json = card(own)
    content = "temp,rainfall,humidity,times,apples,oranges\n" + "".join(
        ",".join(map(str, [*x, weight, *y])) + "\n" for x, weight, y in zip(INPUTS, weights, TARGETS, strict=True)
    )
    answer = own.client.post(
        "/train?weight=times&targets=apples,oranges",
        content=content,
        headers={"content-type": "text/csv", "prefer": "wait=60"},
    )
    assert own.ended_job(answer)["status"] == "succeeded"
    from_csv = card(own)

    assert job["status"] == "succeeded"
    assert from_csv["version"] == from_json["version"] + 1
    assert (from_json["rows"], from_json["features"]) == (15, ["temp", "rainfall", "humidity"])
    for found in (from_json, from_csv):
        assert found["intercept"] == pytest.approx(expected["intercept"], rel=1e-9)
        assert found["coefficients"]["apples"] == pytest.approx(expected["coefficients"]["apples"], rel=1e-9)
        assert found["metrics"]["mse"] == pytest.approx(expected["metrics"]["mse"], rel=1e-9)


@pytest.mark.parametrize(
    ("body", "reason", "place"),
    [
        ({**NOTEBOOK, "sample_weights": [1] * 14}, "14 weights for 15", "/sample_weights"),
        ({**NOTEBOOK, "sample_weights": [1] * 14 + [-1]}, "negative", "/sample_weights/14"),
        ({**NOTEBOOK, "sample_weights": [1] * 14 + ["1"]}, "found a string", "/sample_weights/14"),
        ({**NOTEBOOK, "mode": "update", "solver": {"kind": "gradient_descent"}}, "exact solver", ""),
        ({**NOTEBOOK, "decay": 0.9}, "Only mode update", ""),
        ({**NOTEBOOK, "mode": "update", "decay": 1.5}, "less than or equal to 1", "/decay"),
        (
            {**NOTEBOOK, "mode": "update", "feature_names": ["a", "b", "c"]},
            "terms or targets than these rows. It has features: temp, rainfall, humidity; targets: apples",
            "/mode",
        ),
        (
            {"model": "none", "mode": "forget", "instances": [{"a": 1}], "targets": [{"b": 1}]},
            "no current version",
            "/mode",
        ),
    ],
)
def test_options_that_do_not_fit_together_are_refused(
    own: Service, body: dict[str, Any], reason: str, place: str
) -> None:
    answer = own.client.post("/train", json=body)

    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY, answer.text
    (error,) = answer.json()["errors"]
    assert reason in error["detail"]
    assert error["pointer"] == place


def test_decay_reduces_the_weight_of_earlier_rows_by_their_age(own: Service) -> None:
    own.train(instances=INPUTS[:8], targets=TARGETS[:8])
    own.train(instances=INPUTS[8:], targets=TARGETS[8:], mode="update", decay=1e-9)
    discounted_by = card(own)
    own.train(instances=INPUTS[:8], targets=TARGETS[:8])
    own.train(instances=INPUTS[8:], targets=TARGETS[8:], mode="update")
    kept = card(own)

    # The earlier rows are seconds old: they lost a little of their weight, and all of them count.
    assert discounted_by["rows"] == kept["rows"] == 15
    assert discounted_by["coefficients"] != kept["coefficients"]
    assert discounted_by["coefficients"]["apples"] == pytest.approx(kept["coefficients"]["apples"], rel=0.05)


def test_a_likelihood_survives_an_update_and_is_withheld_after_decay(own: Service) -> None:
    own.train(**NOTEBOOK)
    expected = card(own)
    own.train(instances=INPUTS[:8], targets=TARGETS[:8])
    own.train(instances=INPUTS[8:], targets=TARGETS[8:], mode="update")
    found = card(own)
    for field in ("log_likelihood", "aic", "bic"):
        assert found[field] == pytest.approx(expected[field], rel=1e-9)

    own.train(instances=INPUTS[:8], targets=TARGETS[:8])
    own.train(instances=INPUTS[8:], targets=TARGETS[8:], mode="update", decay=0.5)
    discounted_by = card(own)
    for field in ("log_likelihood", "aic", "bic"):
        assert discounted_by[field] is None
        assert "Decay" in discounted_by["unavailable"][field]
    assert discounted_by["standard_errors"] is not None


@pytest.mark.parametrize("outlier", [1e4, 1e8, 1e11, 1e14])
def test_forgetting_an_outlier_leaves_correct_numbers_or_withholds_them(own: Service, outlier: float) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(50, 1))
    y = 2 * x + 1 + random.normal(size=(50, 1))
    model = f"outlier-{math.log10(outlier):g}"
    names: dict[str, Any] = {"model": model, "feature_names": ["x"], "target_names": ["y"]}
    own.train(**names, instances=x.tolist(), targets=y.tolist())
    expected = card(own, model)
    far: dict[str, Any] = {"instances": [[0.5]], "targets": [[outlier]]}
    own.train(**names, **far, mode="update")

    job = own.train(**names, **far, mode="forget")

    if job["status"] == "failed":
        assert job["error"]["status"] == 422
        assert "again from the rows that remain" in job["error"]["detail"]
        assert outlier > 1e4
        return
    found = card(own, model)
    error = expected["standard_errors"]["y"]["x"]
    assert abs(found["coefficients"]["y"]["x"] - expected["coefficients"]["y"]["x"]) < 1e-3 * error
    assert found["precision_loss"] > 1e4
    bound = found["precision_bounds"]["y"]
    assert bound["coefficients"] < 1e-3
    if found["standard_errors"] is None:
        assert outlier > 1e4
        assert "one part in a million" in found["unavailable"]["standard_errors"]
        assert found["metrics"]["mse"] is None
        assert any("withheld" in warning for warning in job["warnings"])
    else:
        assert bound["residual_sum"] < 1e-6
        assert found["standard_errors"]["y"] == pytest.approx(expected["standard_errors"]["y"], rel=1e-6)
