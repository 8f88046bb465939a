"""Warnings and reasons in the card of a job, over HTTP."""

from typing import Any

import pytest
from service import Service

NOISE = [0.3, -0.1, 0.4, -0.2, 0.1, -0.5, 0.2, -0.3, 0.5, -0.4, 0.0, 0.2]
SITES = [index % 3 for index in range(12)]


def card_of(service: Service, rows: list[list[float]], y: list[float], **solver: object) -> dict[str, Any]:
    job = service.train(
        model="warned",
        instances=rows,
        targets=[[value] for value in y],
        feature_names=[f"x{index}" for index in range(len(rows[0]))],
        target_names=["y"],
        solver={"kind": "exact", **solver},
    )
    assert job["status"] == "succeeded", job["error"]
    card: dict[str, Any] = service.client.get(f"/models/warned/versions/{job['version']}").json()
    return card


def test_nearly_collinear_columns_are_warned_of_without_a_false_loss_of_digits(service: Service) -> None:
    rows = [[float(index), index + 1e-9 * NOISE[index]] for index in range(12)]
    card = card_of(service, rows, [index + NOISE[-1 - index] for index in range(12)])

    (warning,) = card["warnings"]
    assert f"(condition number {card['condition_number']:.0e}): the coefficients are accurate" in warning
    assert card["variance_inflation_factors"]["x0"] == pytest.approx(card["condition_number"] ** 2 / 4, rel=1e-4)


def test_dummies_without_an_intercept_are_an_implicit_constant(service: Service) -> None:
    rows = [[float(site == index) for index in range(3)] for site in SITES]
    y = [50.0 + site + noise for site, noise in zip(SITES, NOISE, strict=True)]
    without = card_of(service, rows, y, fit_intercept=False)
    within = card_of(service, [row[:2] for row in rows], y)

    (warning,) = without["warnings"]
    assert '"x0", "x1" and "x2" is constant in these rows, so the model has an intercept' in warning
    # The same model, with a much higher R² about zero.
    assert without["metrics"]["mse"] == pytest.approx(within["metrics"]["mse"], rel=1e-12)
    assert without["metrics"]["y"]["r2"] > 0.9999
    assert within["metrics"]["y"]["r2"] < 0.95
    assert without["linear_dependencies"] == []
    assert card_of(service, rows, y)["linear_dependencies"] == [["intercept", "x0", "x1", "x2"]]


def test_a_constant_target_has_a_warning_and_a_reason(service: Service) -> None:
    card = card_of(service, [[float(index), NOISE[index]] for index in range(12)], [0.1] * 12)

    assert any(warning.startswith('The target "y" is constant in these rows') for warning in card["warnings"])
    assert card["metrics"]["y"]["r2"] is None
    assert card["unavailable"]["metrics.y.r2"] == "The target does not vary."


def test_a_card_has_no_other_options_than_it_names(service: Service) -> None:
    refused = service.client.get("/models/crop-yield", params={"levl": "0.9"})

    assert refused.status_code == 422
    assert refused.json()["errors"][0]["parameter"] == "levl"
    assert service.client.get("/models/crop-yield", params={"level": "0.9"}).json()["confidence_level"] == 0.9
