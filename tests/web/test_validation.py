"""Cross-validation, the penalty it chooses, and promotion by it, over HTTP."""

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from service import NOTEBOOK, Service


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("validation")).start()
    yield running
    running.stop()


def noisy(seed: int, *, noise: float, rows: int = 40) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 2))
    y = x @ [[1.0], [2.0]] + noise * random.normal(size=(rows, 1))
    return {"instances": x.tolist(), "targets": y.tolist(), "feature_names": ["a", "b"], "target_names": ["y"]}


def test_cross_validated_metrics_stand_beside_those_of_the_training_rows(own: Service) -> None:
    job = own.train(**NOTEBOOK, promote="never", validation={"folds": 5})

    found = job["metrics"]["cross_validation"]
    assert found["folds"] == 5
    assert found["mse"] > job["metrics"]["mse"]
    assert set(found["apples"]) == {"r2", "rmse"}
    assert found["apples"]["rmse"] > job["metrics"]["apples"]["rmse"]


def test_an_automatic_penalty_is_chosen_and_stands_in_the_card(own: Service) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(30, 1)) + 0.05 * random.normal(size=(30, 8))
    y = x[:, :1] + random.normal(size=(30, 1))

    job = own.train(
        model="ridge",
        instances=x.tolist(),
        targets=y.tolist(),
        feature_names=list("abcdefgh"),
        target_names=["y"],
        solver={"kind": "exact", "l2": "auto"},
    )

    assert job["status"] == "succeeded", job["error"]
    assert job["metrics"]["cross_validation"]["folds"] == 10
    card = own.client.get("/models/ridge").json()
    assert card["solver"]["l2"] > 0
    assert card["standard_errors"] is None
    assert "ridge" in card["no_intervals"]


def test_the_same_options_stand_in_a_query(own: Service) -> None:
    content = "temp,rainfall,humidity,apples,oranges\n" + "".join(
        ",".join(map(str, x + y)) + "\n" for x, y in zip(NOTEBOOK["instances"], NOTEBOOK["targets"], strict=True)
    )
    query = "targets=apples,oranges&l2=auto&folds=5&promote=if_better"

    job = own.client.post(
        f"/train?{query}", content=content, headers={"content-type": "text/csv", "prefer": "wait=20"}
    ).json()

    assert job["status"] == "succeeded", job
    assert job["metrics"]["cross_validation"]["folds"] == 5


def test_only_a_better_version_is_promoted(own: Service) -> None:
    own.train(model="rival", **noisy(1, noise=5))
    first = own.client.get("/models/rival").json()["version"]

    # The current version has seen too much noise; on clean rows a model of their own beats it.
    better = own.train(model="rival", promote="if_better", unseen=True, **noisy(2, noise=0.1))
    assert own.client.get("/models/rival").json()["version"] == better["version"] == first + 1
    assert better["warnings"] == []

    # A few rows of noise train nothing that predicts their own kind better than the current version does.
    worse = own.train(model="rival", promote="if_better", unseen=True, **noisy(5, noise=1, rows=5))
    assert worse["status"] == "succeeded"
    assert own.client.get("/models/rival").json()["version"] == better["version"]
    assert "not promoted" in worse["warnings"][0]


@pytest.mark.parametrize(
    "body",
    [
        {"validation": {"folds": 5}, "solver": {"kind": "gradient_descent"}},
        {"validation": {"folds": 5}, "mode": "forget"},
        {"validation": {"folds": 5, "fold_seed": -1}},
        {"validation": {"folds": 5, "groups": ""}},
        {"validation": {"groups": "site"}},
        {"solver": {"kind": "exact", "l2": "auto"}, "mode": "update"},
        {"unseen": True},
        {"unseen": True, "promote": "if_better", "mode": "update"},
        {"promote": "if_better", "mode": "forget"},
        {"validation": {"folds": 1}},
        {"solver": {"kind": "exact", "l2": "much"}},
        {"promote": "if_better", "feature_names": ["a", "b", "c"]},
    ],
)
def test_what_cannot_be_validated_is_refused(own: Service, body: dict[str, Any]) -> None:
    answer = own.client.post("/train", json={**NOTEBOOK, **body})

    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY, answer.text
    assert answer.json()["errors"][0]["detail"]


def test_one_row_cannot_be_validated_and_the_job_says_so(own: Service) -> None:
    job = own.train(model="one", instances=[{"a": 1}], targets=[{"y": 1}], validation={"folds": 5})

    assert job["status"] == "failed"
    assert "at least 2 rows" in job["error"]["detail"]
