"""Reference data, posted and read over HTTP, against the exact solution of the doubles as posted.

The data of NIST's Statistical Reference Datasets are not in this repository. Where the environment variable NIST_STRD
names a folder with them, as CSV files of y and the predictors, they are checked too.
"""

import csv
import math
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import pytest
from service import Service

STRD = os.environ.get("NIST_STRD")
DEGREES = {"norris": 1, "pontius": 2, "filip": 10, "noint1": 1, "noint2": 1} | {f"wampler{i}": 5 for i in range(1, 6)}


def exact_solution(x: Sequence[Sequence[float]], y: Sequence[float], *, intercept: bool) -> list[Fraction]:
    """Coefficients by Gaussian elimination of the normal equations in rational numbers, then their variances."""
    rows = [[Fraction(1)] * intercept + [Fraction(value) for value in row] for row in x]
    width = len(rows[0])
    system = [
        [sum((row[i] * row[j] for row in rows), Fraction(0)) for j in range(width)]
        + [sum((row[i] * Fraction(target) for row, target in zip(rows, y, strict=True)), Fraction(0))]
        + [Fraction(int(i == j)) for j in range(width)]
        for i in range(width)
    ]
    for i in range(width):
        system[i] = [value / system[i][i] for value in system[i]]
        for j in range(width):
            if j != i:
                system[j] = [a - system[j][i] * b for a, b in zip(system[j], system[i], strict=True)]
    coefficients = [row[width] for row in system]
    residuals = [
        Fraction(target) - sum((b * v for b, v in zip(coefficients, row, strict=True)), Fraction(0))
        for row, target in zip(rows, y, strict=True)
    ]
    variance = sum((r * r for r in residuals), Fraction(0)) / (len(rows) - width)
    return coefficients + [variance * system[i][width + 1 + i] for i in range(width)]


def digits(found: float, exact: Fraction) -> float:
    """Correct digits: the log relative error."""
    if exact == 0:
        return 16.0 if found == 0 else -math.log10(abs(found))
    error = abs(Fraction(found) / exact - 1)
    return float(-math.log10(error)) if error else 16.0


def trained_digits(
    service: Service, name: str, x: list[list[float]], y: list[float], *, intercept: bool = True
) -> tuple[float, float]:
    """Correct digits of the worst coefficient and of the worst standard error, as the model card has them."""
    features = [f"x{index}" for index in range(len(x[0]))]
    job = service.train(
        model=f"strd-{name}",
        instances=x,
        targets=[[value] for value in y],
        feature_names=features,
        target_names=["y"],
        solver={"kind": "exact", "fit_intercept": intercept},
    )
    assert job["status"] == "succeeded", job["error"]
    card = service.client.get(f"/models/strd-{name}").json()
    names = ["intercept"] * intercept + features
    found = card["coefficients"]["y"] | {"intercept": card["intercept"]["y"]}
    exact = exact_solution(x, y, intercept=intercept)
    coefficients, variances = exact[: len(names)], exact[len(names) :]
    # Half the digits of the squares: a root of a rational number is not rational.
    errors = [
        digits(card["standard_errors"]["y"][name] ** 2, variance)
        for name, variance in zip(names, variances, strict=True)
    ]
    return (
        min(digits(found[name], coefficient) for name, coefficient in zip(names, coefficients, strict=True)),
        min(errors),
    )


@pytest.mark.parametrize(("delta", "coefficient_digits"), [(0, 12), (1, 12), (100, 11), (10_000, 9)])
def test_a_polynomial_of_degree_5_keeps_its_digits_whatever_its_noise(
    service: Service, delta: float, coefficient_digits: float
) -> None:
    # As Wampler (1970) made them: 1 + x + ... + x^5 at 0 to 20, and multiples of one pattern of residuals.
    pattern = [759, -2048, 2048, -2048, 2523, -2048, 2048, -2048, 1838, -2048, 2048]
    pattern += [-2048, 1838, -2048, 2048, -2048, 2523, -2048, 2048, -2048, 759]
    x = [[float(i**power) for power in range(1, 6)] for i in range(21)]
    y = [1 + sum(row) + delta * noise for row, noise in zip(x, pattern, strict=True)]

    coefficients, errors = trained_digits(service, f"wampler-{delta}", x, y)

    assert coefficients >= coefficient_digits
    assert errors >= 9 or delta == 0


@pytest.mark.skipif(STRD is None, reason="NIST_STRD names no folder with NIST's reference data")
@pytest.mark.parametrize(
    ("name", "coefficient_digits", "error_digits"),
    [
        ("noint1", 14, 12),
        ("noint2", 14, 12),
        ("norris", 13, 12),
        ("pontius", 13, 12),
        ("longley", 13, 12),
        ("wampler1", 12, 0),
        ("wampler2", 12, 0),
        ("wampler3", 12, 9),
        ("wampler4", 11, 9),
        ("wampler5", 9, 9),
        ("filip", 9, 8),
    ],
)
def test_nists_reference_data_keep_their_certified_digits(
    service: Service, name: str, coefficient_digits: float, error_digits: float
) -> None:
    with (Path(STRD or "") / f"{name}.csv").open() as file:
        rows = [[float(value) for value in row] for row in list(csv.reader(file))[1:]]
    y = [row[0] for row in rows]
    x = [row[1:] for row in rows]
    if name in DEGREES:
        x = [[row[0] ** power for power in range(1, DEGREES[name] + 1)] for row in x]

    coefficients, errors = trained_digits(service, name, x, y, intercept=not name.startswith("noint"))

    print(f"{name}: {coefficients:.1f} digits, standard errors {errors:.1f}")  # noqa: T201 - with -s, a table
    assert coefficients >= coefficient_digits
    assert errors >= error_digits or error_digits == 0
