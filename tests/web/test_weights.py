"""The two kinds of weights, the shares that decay leaves, and the options that an update inherits."""

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from service import INPUTS, NOTEBOOK, TARGETS, Service

TIMES = [1, 2, 3, 0, 1, 2, 1, 3, 1, 1, 2, 1, 1, 4, 1]
REPEATED = [index for index, times in enumerate(TIMES) for _ in range(times)]
COMPARED = (
    "intercept", "coefficients", "standard_errors", "t_values", "p_values", "confidence_intervals", "f_tests",
    "residual_deviation", "metrics", "rank", "condition_number",
)  # fmt: skip


@pytest.fixture(scope="module")
def own(publishing: Service) -> Service:
    """A service whose shipped version is current again."""
    answer = publishing.client.put("/models/crop-yield/current", json={"version": 1})
    assert answer.status_code == httpx.codes.OK
    return publishing


@pytest.fixture(scope="module")
def weighted(own: Service) -> Service:
    """The service with `precision` and `frequency`, whose two versions have the rows of the notebook."""
    names = {"feature_names": ["temp", "rainfall", "humidity"], "target_names": ["apples", "oranges"]}
    for kind in ("precision", "frequency"):
        for _ in range(2):
            job = own.train(**NOTEBOOK, **names, model=kind, weight_kind=kind)
            assert job["status"] == "succeeded", job
    return own


def card(service: Service, model: str = "crop-yield") -> dict[str, Any]:
    found: dict[str, Any] = service.client.get(f"/models/{model}").json()
    return found


def published(service: Service, model: str = "crop-yield") -> list[Any]:
    """Return all numbers of the current version and of its predictions in one list."""
    rows = INPUTS[:4] if model == "crop-yield" else [[0.5], [3.0]]
    options = {"interval": 0.95, "confidence": 0.9, "extrapolation": True, "explain": True}
    predicted = service.client.post(f"/models/{model}/predict", json={"instances": rows, **options}).json()
    assert predicted.get("unavailable") is None
    found = card(service, model)
    return [*leaves([found[field] for field in COMPARED]), *leaves({**predicted, "version": 0})]


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = [part for item in sorted(value.items()) for part in item]
    if isinstance(value, list):
        for part in value:
            yield from leaves(part)
    else:
        yield value


def assert_same(found: list[Any], expected: list[Any], rel: float = 1e-9) -> None:
    assert len(found) > 50
    for one, other in zip(found, expected, strict=True):
        assert one == (pytest.approx(other, rel=rel, abs=1e-12) if isinstance(other, float) else other)


def of(indices: list[int]) -> dict[str, Any]:
    return {"instances": [INPUTS[i] for i in indices], "targets": [TARGETS[i] for i in indices]}


def csv(times: list[float]) -> str:
    lines = [[*x, weight, *y] for x, weight, y in zip(INPUTS, times, TARGETS, strict=True)]
    return "temp,rainfall,humidity,times,apples,oranges\n" + "".join(",".join(map(str, line)) + "\n" for line in lines)


def post_csv(service: Service, content: str, query: str) -> dict[str, Any]:
    headers = {"content-type": "text/csv", "prefer": "wait=60"}
    return service.ended_job(service.client.post(f"/train?{query}", content=content, headers=headers))


def test_frequency_weights_equal_repeated_rows(own: Service) -> None:
    own.train(**of(REPEATED))
    expected = published(own)

    own.train(**NOTEBOOK, sample_weights=TIMES, weight_kind="frequency")
    from_json = published(own)
    job = post_csv(own, csv(list(TIMES)), "targets=apples,oranges&weight=times&weight_kind=frequency")
    from_csv = published(own)

    assert job["status"] == "succeeded", job
    assert card(own)["weight_kind"] == "frequency"
    assert_same(from_json, expected)
    assert_same(from_csv, expected)


def test_an_update_with_frequency_weights_equals_one_with_repeated_rows(own: Service) -> None:
    first, second = range(8), range(8, 15)
    own.train(**of([i for i in REPEATED if i in first]))
    own.train(**of([i for i in REPEATED if i in second]), mode="update")
    expected = published(own)

    own.train(**of(list(first)), sample_weights=TIMES[:8], weight_kind="frequency")
    job = own.train(**of(list(second)), sample_weights=TIMES[8:], mode="update")

    assert job["status"] == "succeeded", job
    assert_same(published(own), expected)


def test_the_unit_of_precision_weights_changes_no_published_number(own: Service) -> None:
    random = np.random.default_rng(4)
    x = random.uniform(0, 5, size=(200, 1))
    y = 3 * x + 2 + random.normal(size=(200, 1))
    weights = random.uniform(0.5, 2, size=200)
    found = []
    for factor in (1.0, 100.0, 1 / 200, 1e-6):
        for part, options in (
            (slice(0, 120), {"validation": {"folds": 5}, "feature_names": ["x"], "target_names": ["y"]}),
            (slice(120, 160), {"mode": "update"}),
            (slice(160, 200), {"mode": "update"}),
        ):
            job = own.train(
                model="units",
                instances=x[part].tolist(),
                targets=y[part].tolist(),
                sample_weights=(factor * weights[part]).tolist(),
                **options,
            )
            assert job["status"] == "succeeded", job
        found.append(published(own, "units"))

    for other in found[1:]:
        assert_same(other, found[0])


def test_equal_weights_of_any_size_give_the_interval_of_rows_without_weights(own: Service) -> None:
    rows: dict[str, Any] = {"model": "equal", "feature_names": ["x"], "target_names": ["y"]}
    random = np.random.default_rng(5)
    x = random.uniform(0, 5, size=(200, 1))
    rows |= {"instances": x.tolist(), "targets": (x + random.normal(size=(200, 1))).tolist()}
    widths = []
    for weights in (None, [1.0] * 200, [100.0] * 200, [1 / 200] * 200):
        own.train(**rows, sample_weights=weights)
        answer = own.client.post("/models/equal/predict", json={"instances": [[2.5]], "interval": 0.95}).json()
        low, high = answer["intervals"][0][0]
        widths.append(high - low)

    assert widths == pytest.approx([widths[0]] * 4, rel=1e-9)


def test_frequency_weights_in_a_file_must_be_whole(own: Service) -> None:
    content = csv([1.0, 2.0, 2.5, *[1.0] * 12])

    job = post_csv(own, content, "targets=apples,oranges&weight=times&weight_kind=frequency")

    assert job["status"] == "failed"
    assert "A frequency weight is a whole number" in job["error"]["detail"]
    assert "2.5" not in job["error"]["detail"]
    (error,) = job["error"]["errors"]
    assert (error["row"], error["column"]) == (4, "times")


@pytest.mark.parametrize(
    ("model", "body", "says", "place"),
    [
        (
            "precision",
            {"weight_kind": "frequency", "sample_weights": [1] * 14 + [2.5]},
            "whole number",
            "/sample_weights/14",
        ),
        (
            "precision",
            {"weight_kind": "frequency", "sample_weights": [1] * 14 + [-1]},
            "negative",
            "/sample_weights/14",
        ),
        ("frequency", {"mode": "update", "sample_weights": [0.5] * 15}, "whole", "/sample_weights/0"),
        ("frequency", {"mode": "update", "weight_kind": "precision"}, "frequency", "/weight_kind"),
        ("precision", {"mode": "forget", "weight_kind": "frequency"}, "has precision weights", "/weight_kind"),
        ("precision", {"weight_kind": "count"}, "'precision' or 'frequency'", "/weight_kind"),
        (
            "precision",
            {"mode": "forget", "trained_in": 1},
            "no rows that were added in version 1. It holds",
            "/trained_in",
        ),
        ("precision", {"mode": "forget", "trained_in": 0}, "greater than or equal to 1", "/trained_in"),
        ("precision", {"mode": "forget", "share": 0.5}, "rows are taken out whole", "/share"),
        ("precision", {"mode": "forget", "share": 0}, "greater than 0", "/share"),
        ("precision", {"mode": "forget", "share": 1.5}, "less than or equal to 1", "/share"),
        ("precision", {"mode": "forget", "share": 0.5, "trained_in": 1}, "Give either trained_in or share", ""),
        ("precision", {"mode": "update", "share": 0.5}, "Only mode forget has trained_in and share", ""),
        ("precision", {"trained_in": 1}, "Only mode forget has trained_in and share", ""),
    ],
)
def test_options_that_do_not_fit_the_current_version_are_refused(
    weighted: Service, model: str, body: dict[str, Any], says: str, place: str
) -> None:
    answer = weighted.client.post("/train", json={**NOTEBOOK, "model": model, **body})

    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY, answer.text
    (error,) = answer.json()["errors"]
    assert says in error["detail"]
    assert error["pointer"] == place


def test_rows_that_decayed_are_forgotten_by_their_version(own: Service) -> None:
    first = own.train(**of(list(range(8))))["version"]
    second = own.train(**of(list(range(8, 15))), mode="update", decay=1e-9)["version"]
    shares = card(own)["shares"]
    assert shares[str(second)] == 1
    assert 0 < shares[str(first)] < 1

    refused = own.client.post("/train", json={**of([0]), "mode": "forget"})
    assert refused.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    (error,) = refused.json()["errors"]
    assert error["pointer"] == "/trained_in"
    assert f"version {second}: 1, version {first}: {shares[str(first)]:.6g}" in error["detail"]

    header, row = csv([1.0] * 15).splitlines()[:2]
    query = f"targets=apples,oranges&features=temp,rainfall,humidity&mode=forget&trained_in={first}"
    job = post_csv(own, f"{header}\n{row}\n", query)
    assert job["status"] == "succeeded", job
    forgotten = card(own)
    assert forgotten["shares"] == shares

    weights = [shares[str(first)]] * 7 + [1.0] * 7
    own.train(**of(list(range(1, 15))), sample_weights=weights)
    for field in ("intercept", "coefficients"):
        for found, expected in zip(leaves(forgotten[field]), leaves(card(own)[field]), strict=True):
            assert found == (pytest.approx(expected, rel=1e-9) if isinstance(expected, float) else expected)


def test_an_update_inherits_the_penalty_and_the_intercept(own: Service) -> None:
    parent = {"kind": "exact", "l2": 1.0, "fit_intercept": False, "device": "cpu"}
    own.train(**NOTEBOOK, solver=parent)
    own.train(**of([0, 1]), mode="forget")
    inherited = card(own)
    post_csv(own, csv([1.0] * 15), "targets=apples,oranges&features=temp,rainfall,humidity&mode=update")
    from_csv = card(own)

    assert inherited["solver"] == from_csv["solver"] == parent
    assert not any("parent" in warning for warning in inherited["warnings"] + from_csv["warnings"])


def test_another_penalty_or_intercept_than_the_parents_is_used_with_a_warning(own: Service) -> None:
    own.train(**NOTEBOOK, solver={"l2": 1.0, "kind": "exact"})

    job = own.train(**of([0, 1]), mode="update", solver={"kind": "exact", "l2": 0, "fit_intercept": False})
    found = card(own)
    query = "targets=apples,oranges&features=temp,rainfall,humidity&mode=update&fit_intercept=true"
    again = post_csv(own, csv([1.0] * 15), query)

    expected = [
        "The parent was fitted with l2=1; this version with l2=0, as requested.",
        "The parent was fitted with an intercept; this version without one, as requested.",
    ]
    assert job["warnings"][:2] == found["warnings"][:2] == expected
    assert found["solver"] == {"kind": "exact", "l2": 0.0, "fit_intercept": False, "device": "cpu"}
    assert again["warnings"][0] == "The parent was fitted without an intercept; this version with one, as requested."
