"""Cross-validation, the penalty it chooses, and promotion by it, over HTTP."""

from typing import Any

import httpx
import numpy as np
import pytest
from service import NOTEBOOK, Service


@pytest.fixture(scope="module")
def own(publishing: Service) -> Service:
    """A service whose shipped version is current again."""
    answer = publishing.client.put("/models/crop-yield/current", json={"version": 1})
    assert answer.status_code == httpx.codes.OK
    return publishing


def noisy(seed: int, *, noise: float, rows: int = 40) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 2))
    y = x @ [[1.0], [2.0]] + noise * random.normal(size=(rows, 1))
    return {"instances": x.tolist(), "targets": y.tolist(), "feature_names": ["a", "b"], "target_names": ["y"]}


def test_cross_validated_metrics_are_next_to_those_of_the_training_rows(own: Service) -> None:
    job = own.train(**NOTEBOOK, promote="never", validation={"folds": 5})

    found = job["metrics"]["cross_validation"]
    assert found["folds"] == 5
    assert found["mse"] > job["metrics"]["mse"]
    assert set(found["apples"]) == {"r2", "rmse"}
    assert found["apples"]["rmse"] > job["metrics"]["apples"]["rmse"]


def test_an_automatic_penalty_is_chosen_and_is_in_the_card(own: Service) -> None:
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
    assert "ridge" in card["inference_unavailable"]


def test_the_same_options_work_in_a_query(own: Service) -> None:
    content = "temp,rainfall,humidity,apples,oranges\n" + "".join(
        ",".join(map(str, x + y)) + "\n" for x, y in zip(NOTEBOOK["instances"], NOTEBOOK["targets"], strict=True)
    )
    query = "targets=apples,oranges&l2=auto&folds=5&promote=if_better"

    answer = own.client.post(
        f"/train?{query}", content=content, headers={"content-type": "text/csv", "prefer": "wait=60"}
    )

    job = own.ended_job(answer)
    assert job["status"] == "succeeded", job
    assert job["metrics"]["cross_validation"]["folds"] == 5


def test_only_a_better_version_is_promoted(own: Service) -> None:
    own.train(model="rival", **noisy(1, noise=5))
    first = own.client.get("/models/rival").json()["version"]

    # The current version was fitted to noise, so a model fitted to clean rows beats it on such rows.
    better = own.train(model="rival", promote="if_better", unseen=True, **noisy(2, noise=0.1))
    assert own.client.get("/models/rival").json()["version"] == better["version"] == first + 1
    assert better["warnings"] == []

    # A model fitted to a few rows of noise does not predict such rows better than the current version.
    worse = own.train(model="rival", promote="if_better", unseen=True, **noisy(5, noise=1, rows=5))
    assert worse["status"] == "succeeded"
    assert own.client.get("/models/rival").json()["version"] == better["version"]
    assert "Not promoted" in worse["warnings"][0]


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
def test_requests_that_cannot_be_validated_are_refused(own: Service, body: dict[str, Any]) -> None:
    answer = own.client.post("/train", json={**NOTEBOOK, **body})

    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY, answer.text
    assert answer.json()["errors"][0]["detail"]


def test_without_unseen_a_version_is_published_and_not_promoted(own: Service) -> None:
    own.train(model="seen", **noisy(1, noise=5))

    job = own.train(model="seen", promote="if_better", **noisy(2, noise=0.1))

    assert job["status"] == "succeeded"
    assert own.client.get("/models/seen").json()["version"] == job["version"] - 1
    assert "unseen: true" in job["warnings"][0]


SITES = ["north", "south", "east", "west", "7"]


def by_site(rows: int = 60) -> dict[str, Any]:
    """Rows of five sites in rotation, whose targets differ by site."""
    body = noisy(3, noise=0.1, rows=rows)
    instances = [{"a": a, "b": b, "site": SITES[index % 5]} for index, (a, b) in enumerate(body["instances"])]
    targets = [{"y": y + index % 5} for index, (y,) in enumerate(body["targets"])]
    return {"instances": instances, "targets": targets}


def test_rows_of_a_group_are_kept_together_and_the_card_names_the_groups(own: Service) -> None:
    validation = {"folds": 10, "fold_seed": 4, "groups": "site"}

    job = own.train(model="sites", validation=validation, **by_site())

    assert job["status"] == "succeeded", job
    found = own.client.get("/models/sites").json()
    assert found["features"] == ["a", "b"]
    used = job["metrics"]["cross_validation"]["folds"]
    assert used <= 5
    assert found["validation"] == {**validation, "empty_folds": 10 - used, "rows": 60, "stored": True}
    assert found["no_folds"] is None
    # Rows of other sites predict a site badly. With rows of all sites in every fold, the error is smaller.
    rows = by_site()
    instances = [{"a": row["a"], "b": row["b"]} for row in rows["instances"]]
    by_rows = own.train(model="sites", validation={"folds": 10}, **rows | {"instances": instances})
    assert job["metrics"]["cross_validation"]["mse"] > by_rows["metrics"]["cross_validation"]["mse"]


@pytest.mark.parametrize("features", [None, "a,b"])
def test_a_file_has_its_groups_in_a_column(own: Service, features: str | None) -> None:
    rows = by_site()
    lines = ["a,b,site,y"] + [
        f"{row['a']!r},{row['b']!r},{row['site']},{target['y']!r}"
        for row, target in zip(rows["instances"], rows["targets"], strict=True)
    ]
    query = {"model": "filed", "targets": "y", "folds": "10", "fold_seed": "4", "groups": "site"}
    if features:
        query["features"] = features

    answer = own.client.post(
        "/train",
        params=query,
        content="\n".join(lines),
        headers={"content-type": "text/csv", "prefer": "wait=60"},
    )
    job = own.ended_job(answer)
    expected = own.train(
        model="sites", promote="never", validation={"folds": 10, "fold_seed": 4, "groups": "site"}, **rows
    )

    assert job["status"] == "succeeded", job
    assert own.client.get("/models/filed").json()["features"] == ["a", "b"]
    assert job["metrics"]["cross_validation"]["mse"] == pytest.approx(expected["metrics"]["cross_validation"]["mse"])


def test_groups_of_rows_that_are_arrays_are_one_of_the_features(own: Service) -> None:
    job = own.train(model="arrays", validation={"groups": "b"}, **noisy(1, noise=1))

    assert job["status"] == "succeeded", job
    assert own.client.get("/models/arrays").json()["features"] == ["a", "b"]


@pytest.mark.parametrize(
    ("body", "says", "place"),
    [
        (noisy(1, noise=1) | {"validation": {"groups": "c"}}, "Expected an object", "/instances/0"),
        (by_site() | {"validation": {"groups": "y"}}, "is a target", "/validation/groups"),
        (
            {
                "instances": [{"a": 1, "s": None}],
                "targets": [{"y": 1}],
                "validation": {"groups": "s"},
                "missing": "refuse",
            },
            "group is missing",
            "/instances/0/s",
        ),
    ],
)
def test_invalid_groups_are_refused_with_their_place(own: Service, body: dict[str, Any], says: str, place: str) -> None:
    answer = own.client.post("/train", json=body | {"model": "new"})

    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY, answer.text
    error = answer.json()["errors"][0]
    assert says in error["detail"]
    assert error["pointer"] == place


def test_an_update_adds_its_rows_to_the_folds_and_a_forget_drops_them(own: Service) -> None:
    rows = noisy(1, noise=1)
    names = {name: rows[name] for name in ("feature_names", "target_names")}

    def part(start: int, end: int) -> dict[str, Any]:
        return {"instances": rows["instances"][start:end], "targets": rows["targets"][start:end], **names}

    expected = own.train(model="grown", validation={"folds": 5}, **rows)
    own.train(model="grown", validation={"folds": 5}, **part(0, 33))
    update = own.train(model="grown", mode="update", validation={"folds": 5}, **part(33, 40))
    found = own.client.get("/models/grown").json()
    forget = own.train(model="grown", mode="forget", **part(0, 1))

    assert update["metrics"]["cross_validation"]["mse"] == pytest.approx(
        expected["metrics"]["cross_validation"]["mse"], rel=1e-9
    )
    assert found["validation"]["rows"] == 40
    assert "drops the statistics of the folds" in forget["warnings"][0]
    assert own.client.get("/models/grown").json()["no_folds"] == forget["warnings"][0]


def test_one_row_cannot_be_validated_and_the_job_gives_the_reason(own: Service) -> None:
    job = own.train(model="one", instances=[{"a": 1}], targets=[{"y": 1}], validation={"folds": 5})

    assert job["status"] == "failed"
    assert "at least 2 rows" in job["error"]["detail"]
