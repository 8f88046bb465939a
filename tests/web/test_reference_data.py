"""Reference data, posted and read over HTTP, against the exact solution of the doubles as posted.

The data are those of NIST's Statistical Reference Datasets, in tests/regression/nist.
"""

import csv
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import pytest
from service import Service

STRD = Path(__file__).parents[1] / "regression" / "nist"
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


def root(value: Fraction) -> Fraction:
    """Return the square root, to 60 digits."""
    scale = 10**60
    return Fraction(math.isqrt(value.numerator * scale**2 // value.denominator), scale)


def digits(found: float, exact: Fraction) -> float:
    """Correct digits: the log relative error."""
    if exact == 0:
        return 16.0 if found == 0 else -math.log10(abs(found))
    error = abs(Fraction(found) / exact - 1)
    return float(-math.log10(error)) if error else 16.0


def trained_digits(
    service: Service, name: str, x: list[list[float]], y: list[float], *, intercept: bool = True
) -> tuple[float, float | None]:
    """Correct digits of the worst coefficient and of the worst standard error, as the model card has them.

    None for the latter if the card withholds them for an essentially perfect fit.
    """
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
    if card["standard_errors"] is None:
        assert "essentially perfect" in card["inference_unavailable"]
        return min(digits(found[name], exact) for name, exact in zip(names, coefficients, strict=True)), None
    errors = [
        digits(card["standard_errors"]["y"][name], root(variance))
        for name, variance in zip(names, variances, strict=True)
    ]
    return (
        min(digits(found[name], coefficient) for name, coefficient in zip(names, coefficients, strict=True)),
        min(errors),
    )


@pytest.mark.parametrize("delta", [1, 100, 10_000])
def test_a_polynomial_of_degree_5_keeps_its_digits_whatever_its_noise(service: Service, delta: float) -> None:
    # As Wampler (1970) made them: 1 + x + ... + x^5 at 0 to 20, and multiples of one pattern of residuals.
    pattern = [759, -2048, 2048, -2048, 2523, -2048, 2048, -2048, 1838, -2048, 2048]
    pattern += [-2048, 1838, -2048, 2048, -2048, 2523, -2048, 2048, -2048, 759]
    x = [[float(i**power) for power in range(1, 6)] for i in range(21)]
    y = [1 + sum(row) + delta * noise for row, noise in zip(x, pattern, strict=True)]

    coefficients, errors = trained_digits(service, f"wampler-{delta}", x, y)

    assert coefficients >= 15.9
    assert errors is not None
    assert errors >= 15.3


# Digits of the worst coefficient and of the worst standard error, as docs/explanation/accuracy.md states them.
# A perfect fit has no standard errors.
CERTIFIED = [
    ("noint1", 15.9, 15.9),
    ("noint2", 15.9, 15.9),
    ("norris", 15.9, 15.9),
    ("pontius", 15.9, 15.9),
    ("longley", 15.9, 15.9),
    ("wampler1", 15.9, None),
    ("wampler2", 15.9, None),
    ("wampler3", 15.9, 15.9),
    ("wampler4", 15.9, 15.9),
    ("wampler5", 15.9, 15.6),
    ("filip", 15.9, 15.6),
]


@pytest.mark.parametrize(("name", "coefficient_digits", "error_digits"), CERTIFIED)
def test_nists_reference_data_keep_their_certified_digits(
    service: Service, name: str, coefficient_digits: float, error_digits: float | None
) -> None:
    with (STRD / f"{name}.csv").open() as file:
        rows = [[float(value) for value in row] for row in list(csv.reader(file))[1:]]
    y = [row[0] for row in rows]
    x = [row[1:] for row in rows]
    if name in DEGREES:
        x = [[row[0] ** power for power in range(1, DEGREES[name] + 1)] for row in x]

    coefficients, errors = trained_digits(service, name, x, y, intercept=not name.startswith("noint"))

    print(f"{name}: {coefficients:.1f} digits, standard errors {errors}")  # noqa: T201 - with -s, a table
    assert coefficients >= coefficient_digits
    if error_digits is None:
        assert errors is None
    else:
        assert errors is not None
        assert errors >= error_digits
