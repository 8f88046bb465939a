"""Random sequences of train, update, decay and forget over rows that are hard to fit, checked by exact arithmetic.

Each number of a version must be right to its stated bound or withheld with a reason, unless the job fails. A seed gives
one sequence. To run many sequences, and print counts, the largest error of each kind relative to its bound, and each
violation:

    PYTHONPATH=.:tests nice -n 10 python -W error -m regression.sequences 20000 [FIRST_SEED] [PROCESSES]

The bounds. e is `SufficientStatistics.factor_error`, the relative error of each column of the factor:

- After a forget: `precision_bounds`. Residual sums and standard errors are published if their bound is at most 1e-6,
  and coefficients if their bound is at most 1e-3 standard errors, or if their error is negligible.
- A refined fit: 1e-12 of each coefficient, standard error and residual deviation.
- All others: let b be the coefficients of the d columns about the shift at unit norm, r the residuals, and s the
  smallest singular value of these columns that is not zero. Predictions differ from the optimum's by at most
  2 e (sum |b_j| + |y| + sqrt(d) |r| / s) in the norm over all rows, and the norm of the residuals by at most
  2 e (sum |b_j| + |y|) (Stewart, Matrix Algorithms, 1998, 4.3). There is no bound if sqrt(d) e / s exceeds 1e-2.
"""

import collections
import math
import multiprocessing
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal, TypeAlias

import mpmath
import numpy as np
from numpy.typing import NDArray
from regression.exact import BITS, ExactFit, Objects

from app.regression.downdate import NOT_AMONG, downdate
from app.regression.errors import InvalidData
from app.regression.extended_precision import refine, should_refine
from app.regression.hypothesis_tests import Inference, infer
from app.regression.least_squares import Fit, fit, why_no_inference
from app.regression.linear_model import LinearModel
from app.regression.metrics import Metrics, training_metrics
from app.regression.precision import (
    FAILED_FROM,
    NEGLIGIBLE,
    PRECISION_LOST,
    WITHHELD_FROM,
    check_precision,
    precision_bounds,
    precision_loss,
)
from app.regression.solvers import Exact
from app.regression.sufficient_statistics import SufficientStatistics, WeightKind
from app.regression.summaries import summarise
from app.regression.training_batch import TrainingBatch

Array: TypeAlias = NDArray[np.float64]

REFINED = 1e-12  # relative error of the numbers of a refined fit
DRIFTING = 5  # last digit of the seeds of sequences in which units change
ROUNDING = 1e-13  # relative error of numbers that follow from others by a few operations
EPSILON = float(np.finfo(float).eps)


@dataclass(frozen=True, eq=False)
class Published:
    """Numbers that a job publishes about its fit, as `app.training.pipeline` assembles them."""

    statistics: SufficientStatistics
    model: LinearModel
    optimum: Fit
    refined: bool
    withheld: str | None  # why residual sums are withheld
    metrics: Metrics
    inference: Inference | None


def publish(statistics: SufficientStatistics, solver: Exact, rows: TrainingBatch | None) -> Published:
    """Fit and publish; `rows` are all rows of the statistics if they can be read again. Raises InvalidData."""
    optimum = fit(statistics, solver)
    withheld = check_precision(statistics, precision_bounds(statistics, optimum, l2=solver.l2))
    best = optimum
    if rows is not None and solver.l2 == 0 and should_refine(statistics, optimum):
        best = refine([rows], statistics, fit_intercept=solver.fit_intercept)
    inference_unavailable = withheld or why_no_inference(statistics, optimum, solver, best.residual_norms)
    names = [f"c{index}" for index in range(len(statistics.shift))]
    model = LinearModel(
        tuple(names[: statistics.features]),
        tuple(names[statistics.features :]),
        best.coef,
        best.intercept,
        statistics,
        np.full_like(best.residual_norms, np.nan) if withheld else best.residual_norms,
        best.unscaled_errors if inference_unavailable is None else None,
        best.centre_prediction,
        has_intercept=solver.fit_intercept,
        inference_unavailable=inference_unavailable,
    )
    with np.errstate(over="ignore", under="ignore"):  # the mean squared error may overflow
        metrics = training_metrics(
            statistics, model.residual_norms, rank=optimum.design.rank, fit_intercept=solver.fit_intercept
        )
    inference = infer(model) if inference_unavailable is None else None
    return Published(statistics, model, optimum, best is not optimum, withheld, metrics, inference)


@dataclass(frozen=True, eq=False)
class Truth:
    """The rows of a version, each with its exact weight."""

    x: Array
    y: Array
    given: Array  # weights as they were sent
    shares: Array  # remaining share of each row's weight, as the service computes it
    weights: tuple[Fraction, ...]  # exact weights after decay
    kind: WeightKind

    @classmethod
    def of(cls, rows: TrainingBatch, kind: WeightKind) -> "Truth":
        given = np.ones(len(rows.x)) if rows.sample_weight is None else rows.sample_weight
        return cls(rows.x, rows.y, given, np.ones(len(given)), tuple(map(Fraction, given.tolist())), kind)

    def discounted_by(self, share: float) -> "Truth":
        weights = tuple(weight * Fraction(share) for weight in self.weights)
        return replace(self, shares=self.shares * share, weights=weights)

    def merge(self, other: "Truth") -> "Truth":
        return Truth(
            np.vstack([self.x, other.x]),
            np.vstack([self.y, other.y]),
            np.concatenate([self.given, other.given]),
            np.concatenate([self.shares, other.shares]),
            self.weights + other.weights,
            self.kind,
        )

    def without(self, rows: NDArray[np.int64], lost: Array | None = None) -> "Truth":
        """Return the rows without these, or without this integer part of their weights."""
        weights, given = list(self.weights), self.given.copy()
        if lost is not None:
            for row, part in zip(rows, lost, strict=True):
                weights[row] -= Fraction(part) * (self.weights[row] / Fraction(self.given[row]))
                given[row] -= part
            kept = np.flatnonzero(given > 0)
        else:
            kept = np.setdiff1d(np.arange(len(self.x)), rows)
        return Truth(
            self.x[kept],
            self.y[kept],
            given[kept],
            self.shares[kept],
            tuple(weights[row] for row in kept),
            self.kind,
        )

    @property
    def count(self) -> float:
        return float(self.shares.sum() if self.kind == "precision" else (self.shares * self.given).sum())


@dataclass(frozen=True, eq=False)
class Column:
    """How the values of a feature are drawn."""

    form: Literal["normal", "integer", "collinear", "duplicate", "constant", "dummy", "heavy"]
    offset: float
    scale: float
    nearness: float

    @classmethod
    def draw(cls, random: np.random.Generator, first: bool) -> "Column":
        forms = ("normal", "integer", "collinear", "duplicate", "constant", "dummy", "heavy")
        form = random.choice(forms, p=(0.42, 0.12, 0.2, 0.06, 0.06, 0.07, 0.07))
        if first and form in {"collinear", "duplicate"}:
            form = "normal"
        offset = 0.0 if random.random() < 0.5 else 10 ** random.uniform(0, 15)
        return cls(form, offset * random.choice([-1, 1]), _scale(random), 10 ** random.uniform(-12, 0))

    def values(self, random: np.random.Generator, rows: int, before: Array | None) -> Array:
        """Return values before offset and scale."""
        normal: Array = random.normal(size=rows)
        if self.form == "integer":
            return np.asarray(random.integers(-3, 4, rows).astype(float))
        if self.form == "constant":
            return np.full(rows, 0.7)
        if self.form == "dummy":
            return np.asarray((normal > 1).astype(float))
        if self.form == "heavy":
            return np.asarray(normal**5)
        if before is not None and self.form in {"collinear", "duplicate"}:
            return before if self.form == "duplicate" else before + self.nearness * normal
        return normal


def _scale(random: np.random.Generator) -> float:
    kind = random.random()
    if kind < 0.6:
        return 1.0
    return float(10 ** random.uniform(-6, 6) if kind < 0.8 else 10 ** random.uniform(-160, 160))


@dataclass(frozen=True, eq=False)
class Population:
    """Source of the rows of a sequence."""

    columns: tuple[Column, ...]
    slopes: Array
    noise: float
    target_offset: float
    target_scale: float
    kind: WeightKind
    weighted: bool
    mean_weight: float
    weight_spread: float  # powers of ten

    @classmethod
    def draw(cls, random: np.random.Generator) -> "Population":
        p = int(random.integers(1, 5))
        k = 1 if random.random() < 0.8 else 2
        slopes = random.normal(size=(p, k)) * (random.random((p, k)) < 0.8)
        noise = 0.0 if random.random() < 0.04 else 10 ** random.uniform(-9, 1)
        kind: WeightKind = "frequency" if random.random() < 0.25 else "precision"
        spread = random.choice([0.0, 1.0, 3.0, 20.0, 60.0], p=[0.3, 0.3, 0.2, 0.1, 0.1])
        return cls(
            tuple(Column.draw(random, first=j == 0) for j in range(p)),
            slopes,
            noise if random.random() < 0.5 else 1.0,
            0.0 if random.random() < 0.5 else 10 ** random.uniform(0, 15),
            _scale(random),
            kind,
            kind == "frequency" or random.random() < 0.5,
            1.0 if random.random() < 0.5 else 10 ** random.uniform(-60, 60),
            spread,
        )

    def rows(self, random: np.random.Generator, count: int, outlier: float = 0.0) -> TrainingBatch:
        """Return rows; with an outlier, one value of a random column is moved by this number of its scales."""
        units: list[Array] = []
        for column in self.columns:
            units.append(column.values(random, count, units[-1] if units else None))
        z = np.column_stack(units)
        target = z @ self.slopes + self.noise * random.normal(size=(count, self.slopes.shape[1]))
        if outlier and random.random() < 0.5:
            z[:, random.integers(len(units))] = outlier * (1 + random.random(count))
            if random.random() < 0.5:
                target = z @ self.slopes + self.noise * random.normal(size=target.shape)
        elif outlier:
            target[:, 0] = outlier * (1 + random.random(count))
        offsets = np.array([column.offset for column in self.columns])
        x = (z + offsets) * np.array([column.scale for column in self.columns])
        y = (target + self.target_offset) * self.target_scale
        return TrainingBatch(x, y, self._weights(random, count))

    def _weights(self, random: np.random.Generator, count: int) -> Array | None:
        if not self.weighted:
            return None
        if self.kind == "frequency":
            most = 5 if self.weight_spread < 20 else 10**6
            return random.integers(0 if random.random() < 0.2 else 1, most, count).astype(float)
        powers = random.uniform(-self.weight_spread, self.weight_spread, count)
        return np.clip(self.mean_weight * 10**powers, 1e-60, 1e60)


@dataclass
class Report:
    """Results of sequences."""

    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    worst: dict[str, tuple[float, int]] = field(default_factory=dict)  # error relative to its bound, and the seed
    violations: list[str] = field(default_factory=list)

    def add(self, other: "Report") -> None:
        self.counts.update(other.counts)
        for name, (ratio, seed) in other.worst.items():
            self.observe(name, ratio, seed)
        self.violations += other.violations

    def observe(self, name: str, ratio: float, seed: int) -> None:
        if ratio >= self.worst.get(name, (0.0, 0))[0]:
            self.worst[name] = ratio, seed


class Sequence:
    """One sequence: the current version, its rows, and the steps that change them."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.report = Report()
        self._random = random = np.random.default_rng(seed)
        self.population = Population.draw(random)
        intercept = bool(random.random() < 0.8)
        self.solver = Exact(l2=0.0 if random.random() < 0.8 else 10 ** random.uniform(-30, 3), fit_intercept=intercept)
        # In every tenth sequence some rows come in other units.
        self._units = np.random.default_rng([seed, 1]) if seed % 10 == DRIFTING else None
        self.statistics: SufficientStatistics | None = None
        self.truth: Truth | None = None
        self.step = "start"
        self.steps = 0

    def run(self) -> Report:
        """Run all steps and return the report. A violation ends the sequence."""
        count = int(self._random.integers(1, 8) if self._random.random() < 0.15 else self._random.integers(8, 50))
        self._train(count)
        for _ in range(int(self._random.integers(1, 6))):
            if self.report.violations:
                break
            chances = (0.04, 0.28, 0.26, 0.2, 0.08, 0.08, 0.06)
            self._events[self._random.choice(len(chances), p=chances)]()
        return self.report

    @property
    def _events(self) -> tuple[Callable[[], None], ...]:
        return (
            self._train_again,
            self._update,
            self._outliers,
            self._forget,
            self._one_at_a_time,
            self._part,
            self._foreign,
        )

    # Steps

    def _train(self, count: int) -> None:
        rows = self._rows(count)
        self._attempt("train", lambda: summarise([rows], weight_kind=self.population.kind), self._positive(rows), rows)

    def _rows(self, count: int, outlier: float = 0.0) -> TrainingBatch:
        rows = self.population.rows(self._random, count, outlier)
        if self._units is None or self._units.random() < 0.6:
            return rows
        change = self._units.random(rows.x.shape[1]) < 0.5
        units = np.where(change, 10 ** self._units.uniform(-140, 140, rows.x.shape[1]), 1.0)
        return rows._replace(x=rows.x * units)

    def _train_again(self) -> None:
        self._train(int(self._random.integers(5, 40)))

    def _update(self, outlier: float = 0.0, most: int = 30) -> None:
        rows = self._rows(int(self._random.integers(1, most)), outlier)
        share = 1.0 if self._random.random() < 0.7 else float(self._random.choice([0.5, 0.9, 0.123, 1e-3, 1e-8]))
        base, truth = self.statistics, self.truth
        if base is None or truth is None:
            return self._train(20)
        new = self._positive(rows)
        return self._attempt(
            f"update with {len(rows.x)} rows, outlier {outlier:g}, decay {share}",
            lambda: base.discounted_by(share).merge(summarise([rows], weight_kind=self.population.kind)),
            truth.discounted_by(share) if new is None else truth.discounted_by(share).merge(new),
        )

    def _outliers(self) -> None:
        before = 0 if self.truth is None else len(self.truth.x)
        self._update(10 ** self._random.uniform(0, 14), 3)
        if self.truth is None or self.report.violations:
            return
        added = np.arange(before, len(self.truth.x))
        if self._random.random() < 0.3:
            self._update()
        if len(added) and not self.report.violations:
            self._take_out(added, "the outliers")

    def _forget(self) -> None:
        if self.truth is None or self.truth.shares.size == 0:
            return
        share = self._random.choice(self.truth.shares)
        rows = np.flatnonzero(self.truth.shares == share)
        count = int(self._random.integers(1, len(rows) + 1))
        self._take_out(self._random.choice(rows, count, replace=False), f"{count} rows")

    def _one_at_a_time(self) -> None:
        for _ in range(14):
            if self.truth is None or self.report.violations:
                return
            refused = self.report.counts["refused"] + self.report.counts["failed"]
            self._take_out(np.array([self._random.integers(len(self.truth.x))]), "one row")
            if self.report.counts["refused"] + self.report.counts["failed"] > refused:
                return

    def _part(self) -> None:
        """Forget a part of the frequency weight of some rows."""
        if self.truth is None or self.population.kind != "frequency":
            return self._forget()
        rows = np.flatnonzero((self.truth.given > 1) & (self.truth.shares == self.truth.shares[0]))
        if not len(rows):
            return None
        rows = self._random.choice(rows, int(self._random.integers(1, len(rows) + 1)), replace=False)
        lost = np.array([float(self._random.integers(1, self.truth.given[row])) for row in rows])
        return self._take_out(rows, "a part of the weights", lost)

    def _foreign(self) -> None:
        """Forget rows that were never added, and begin again, because this may succeed with unknown numbers."""
        base = self.statistics
        if base is None:
            return
        rows = self.population.rows(self._random, int(self._random.integers(1, 60)), self._random.choice([0, 1e3]))
        self._attempt(
            "forget foreign rows", lambda: downdate(base, summarise([rows], weight_kind=base.weight_kind)), None
        )
        self._train(20)

    def _take_out(self, rows: NDArray[np.int64], what: str, lost: Array | None = None) -> None:
        base, truth = self.statistics, self.truth
        assert base is not None
        assert truth is not None
        part = TrainingBatch(truth.x[rows], truth.y[rows], truth.given[rows] if lost is None else lost)
        share = float(truth.shares[rows[0]])
        if (truth.shares[rows] != share).any():
            rows, part = (
                rows[:1],
                TrainingBatch(part.x[:1], part.y[:1], None if part.sample_weight is None else part.sample_weight[:1]),
            )
            lost = None if lost is None else lost[:1]
        self._attempt(
            f"forget {what}, share {share}",
            lambda: downdate(base, summarise([part], weight_kind=base.weight_kind), share),
            truth.without(rows, lost),
            legitimate=True,
        )

    # Checks

    def _positive(self, rows: TrainingBatch) -> Truth | None:
        truth = Truth.of(rows, self.population.kind)
        kept = np.flatnonzero(truth.given > 0)
        return truth.without(np.setdiff1d(np.arange(len(truth.x)), kept)) if len(kept) else None

    def _attempt(
        self,
        step: str,
        statistics: Callable[[], SufficientStatistics],
        truth: Truth | None,
        rows: TrainingBatch | None = None,
        *,
        legitimate: bool = False,
    ) -> None:
        self.steps += 1
        self.step = f"seed {self.seed}, step {self.steps} ({step})"
        self.report.counts["steps"] += 1
        try:
            found = statistics()
            published = publish(found, self.solver, rows)
        except InvalidData as error:
            self._refused(error, legitimate=legitimate)
            return
        except Exception:  # every other error is a violation
            self._violation(traceback.format_exc())
            return
        self.report.counts["withheld" if published.withheld else "published"] += 1
        if "forget" in step:
            self.report.counts["published after a forget"] += 1
        self._check_sane(published)
        if truth is None:
            self.statistics = self.truth = None
            return
        self.statistics, self.truth = found, truth
        with mpmath.workprec(BITS):
            self._check(published, truth)

    def _refused(self, error: InvalidData, *, legitimate: bool) -> None:
        failed = error.message == PRECISION_LOST
        self.report.counts["failed" if failed else "refused"] += 1
        self.report.counts[f"refused: {' '.join(error.message.split()[:7])}"] += not failed
        if legitimate and error.message.startswith(NOT_AMONG):
            self._violation(f"rows that were added are refused: {error.message}")

    def _violation(self, message: str) -> None:
        self.report.counts["violations"] += 1
        self.report.violations.append(f"{self.step}: {message}")

    def _require(self, holds: bool, message: str) -> None:
        if not holds:
            self._violation(message)

    def _observe(self, name: str, error: Any, bound: Any) -> None:
        """Compare an error with its bound."""
        error, bound = mpmath.mpf(error), mpmath.mpf(bound)
        ratio = 0.0 if error == 0 else float(error / bound) if bound > 0 else math.inf
        self.report.observe(name, ratio, self.seed)
        self._require(ratio <= 1, f"{name}: error {float(error):.3g}, bound {float(bound):.3g}")

    def _check_sane(self, published: Published) -> None:
        """Check properties that every version has, for any rows."""
        model, statistics, metrics = published.model, published.statistics, published.metrics
        self._require(published.optimum.design.rank <= statistics.rows, "the rank exceeds the rows")
        self._require(statistics.rows > 0 and statistics.effective_rows > 0, "no rows")
        for name, values in (
            ("weights", model.coef),
            ("intercept", model.intercept),
            ("centre prediction", model.centre_prediction),
            ("condition number", published.optimum.design.condition_number),
            ("precision loss", 1.0 if precision_loss(statistics) == np.inf else precision_loss(statistics)),
        ):
            self._require(bool(np.isfinite(np.asarray(values, dtype=float)).all()), f"{name} not finite")
        known = np.isfinite(model.residual_norms) & np.isfinite(metrics.rmse)
        self._require(
            not known.any() if published.withheld else bool(known.all()), "residual norms neither known nor withheld"
        )
        self._require(not np.isinf(metrics.r2).any() and not np.isinf(metrics.adjusted_r2).any(), "R² infinite")
        self._require(not (metrics.r2 > 1).any(), "R² above 1")
        representable = bool(((metrics.rmse > 1e-150) & (metrics.rmse < 1e150)).all())
        self._require(not np.isinf(metrics.mse), "mean squared error infinite")
        self._require(not representable or metrics.mse > 0, "mean squared error not known")
        if published.inference is not None:
            self._check_inference(published, published.inference)

    def _check_inference(self, published: Published, inference: Inference) -> None:
        assert published.model.unscaled_errors is not None
        known = ~np.isnan(published.model.unscaled_errors)
        known[0] &= published.model.has_intercept
        for name in ("standard_errors", "t_values", "p_values", "lower", "upper"):
            values = getattr(inference, name)
            self._require(bool(np.isfinite(values[:, known]).all()), f"{name} not finite")
        for name in ("residual_deviation", "f_values", "f_p_values"):
            values = getattr(inference, name)
            allowed = np.isfinite(values) | (published.optimum.design.rank == published.model.has_intercept)
            self._require(bool(allowed.all()), f"{name} not finite")
        self._require(bool((inference.standard_errors[:, known] > 0).all()), "a standard error of zero")

    def _check(self, published: Published, truth: Truth) -> None:
        """Check the numbers against the exact fit of the version's rows."""
        statistics = published.statistics
        self._require(published.optimum.design.rank <= len(truth.x), "the rank exceeds the rows that there are")
        whole = self.population.kind == "precision"
        self._require(not whole or statistics.rows == len(truth.x), "not as many rows as there are")
        self._observe("count", abs(statistics.effective_rows - truth.count), 1e-9 * max(truth.count, 1))
        exact = ExactFit.of(
            truth.x,
            truth.y,
            list(truth.weights),
            shift=statistics.shift,
            intercept=self.solver.fit_intercept,
            penalty=self.solver.l2 / statistics.effective_rows,
        )
        Comparison(self, published, exact).run()


class Comparison:
    """Published numbers next to the exact ones. Runs within the precision of mpmath."""

    def __init__(self, sequence: Sequence, published: Published, exact: ExactFit) -> None:
        self._sequence, self._published, self._exact = sequence, published, exact
        self._observe, self._require = sequence._observe, sequence._require
        self._statistics = statistics = published.statistics
        self._p = p = statistics.features
        self._intercept = exact.intercept
        self._root_weight = mpmath.sqrt(exact.gram[0, 0])
        shift = np.abs(statistics.shift)
        sizes = np.array([mpmath.sqrt(value) for value in np.diag(exact.gram)], dtype=object)
        # Errors of a column about zero are relative to its norm about the shift.
        self._sizes = sizes if exact.intercept else sizes + 2 * self._root_weight * np.array([0.0, *shift])
        norms = [(self._sizes[j] / sizes[j], sizes[j]) for j in range(1, p + 1) if sizes[j] > 0]
        self._growth = mpmath.sqrt(sum(ratio**2 for ratio, _ in norms) + exact.intercept)
        self._residuals = np.array([mpmath.sqrt(abs(value)) for value in exact.rss], dtype=object)

    def run(self) -> None:
        removed = self._statistics.removed is not None
        if not self._check_rank(removed=removed):
            return
        if removed:
            self._check_after_forget()
        elif self._published.refined:
            self._check_refined()
        else:
            self._check_by_condition()
        self._check_intercept()

    @property
    def _error(self) -> float:
        return float(self._statistics.factor_error)

    @property
    def _second_order(self) -> bool:
        """Return True if the error of the columns is too large for first-order bounds."""
        return bool(self._error * self._growth > 1e-2 * self._exact.least)

    def _check_rank(self, *, removed: bool) -> bool:
        """Return True if the numbers can be compared, because the rank is the exact one."""
        rank, constant = self._published.optimum.design.rank, self._exact.rank
        clear = self._exact.least_of_rows > 1e-10 * float(self._growth) and not removed
        self._require(rank <= constant, f"the rank is {rank} and not {constant}")
        self._require(
            not clear or rank == constant, f"the rank is {rank} and not {constant}, least {self._exact.least}"
        )
        flat = self._published.optimum.design.norms == 0
        self._require(not self._published.model.coef[:, flat].any(), "a constant column has a coefficient")
        return rank == constant

    def _differences(self) -> tuple[Objects, Objects]:
        """Return the errors of the predictions at the shift, (k,), and of the slopes, (p, k)."""
        model = self._published.model
        assert model.centre_prediction is not None
        slopes = model.coef.T.astype(object) - self._exact.slopes
        if not self._intercept:
            return np.array([mpmath.mpf(0)] * len(model.intercept)), slopes
        at_shift = [mpmath.mpf(value) for value in model.centre_prediction] - self._statistics.shift[self._p :].astype(
            object
        )
        return at_shift - self._exact.at_shift, slopes

    def _check_by_condition(self) -> None:
        if self._second_order:
            self._sequence.report.counts["no bound stated"] += 1
            return
        exact, e = self._exact, self._error
        at_shift, slopes = self._differences()
        first = slice(0 if self._intercept else 1, self._p + 1)
        gram = exact.gram[: self._p + 1, : self._p + 1].copy()
        gram[np.arange(1, self._p + 1), np.arange(1, self._p + 1)] += exact.penalties
        for k, size in enumerate(self._sizes[self._p + 1 :]):
            off = np.array([at_shift[k], *slopes[:, k]], dtype=object)[first]
            coefficients = np.array([exact.at_shift[k], *exact.slopes[:, k]], dtype=object)[first]
            terms = abs(coefficients) @ self._sizes[first] + size
            residual = mpmath.sqrt(exact.rss[k] + exact.penalties @ exact.slopes[:, k] ** 2)
            bound = 2 * e * (terms + self._growth * residual / exact.least)
            # The published prediction at the shift is rounded to the spacing of the targets.
            bound += EPSILON * self._root_weight * abs(self._statistics.shift[self._p + k])
            self._observe("predictions", mpmath.sqrt(abs(off @ gram[first, first] @ off)), bound)
            found = self._published.model.residual_norms[k]
            excess = bound * min(mpmath.mpf(1), bound / self._residuals[k] if self._residuals[k] else 1)
            self._observe("residual norm", abs(found - self._residuals[k]), 2 * e * terms + excess)
        self._check_standard_errors(2 * e * self._growth / exact.least + ROUNDING)

    def _check_refined(self) -> None:
        _, slopes = self._differences()
        exact = self._exact
        totals = [mpmath.sqrt(value) for value in self._exact.tss]
        freedom = max(self._statistics.effective_rows - self._exact.rank, 1.0)
        errors = np.array([mpmath.sqrt(value) for value in self._exact.variances], dtype=object)
        for k, residual in enumerate(self._residuals):
            deviation = residual / mpmath.sqrt(freedom)
            for j, off in enumerate(slopes[:, k]):
                tiny = REFINED * errors[j + 1] * deviation
                if exact.norms[j]:  # and what 400 bits leave of a coefficient of zero
                    tiny += totals[k] / exact.norms[j] * mpmath.mpf(10) ** -40
                self._observe("refined coefficient", abs(off), REFINED * abs(self._exact.slopes[j, k]) + tiny)
            # Residuals below 1e-14 of the target's deviations are taken as zero.
            allowed = REFINED * residual if residual > 1.1e-14 * totals[k] else 1.1e-14 * totals[k]
            self._observe("refined residual norm", abs(self._published.model.residual_norms[k] - residual), allowed)
        self._check_standard_errors(REFINED)

    def _check_after_forget(self) -> None:
        bounds = precision_bounds(self._statistics, self._published.optimum, l2=self._sequence.solver.l2)
        assert bounds is not None
        exact = self._exact
        full = exact.rank == self._p + self._intercept
        _, slopes = self._differences()
        freedom = max(self._statistics.effective_rows - exact.rank, 1.0)
        for k, residual in enumerate(self._residuals):
            if not self._published.withheld:
                sums = abs(mpmath.mpf(self._published.model.residual_norms[k]) ** 2 - exact.rss[k])
                self._observe("residual sum after a forget", sums, bounds.rss[k] * exact.rss[k])
                self._observe("published residual sum", sums, WITHHELD_FROM * exact.rss[k])
            if not full:
                continue
            deviation = residual / mpmath.sqrt(freedom)
            for j, off in enumerate(slopes[:, k]):
                error = deviation * mpmath.sqrt(exact.variances[j + 1])
                spread = exact.norms[j]
                negligible = 2 * NEGLIGIBLE * mpmath.sqrt(exact.tss[k]) / spread if spread else 0
                stated = bounds.coefficients[k, j + 1] * error
                if abs(off) > negligible:
                    self._observe("coefficient after a forget", abs(off), stated)
                    self._observe("published coefficient", abs(off), FAILED_FROM * error)
        self._check_standard_errors(WITHHELD_FROM)

    def _check_standard_errors(self, relative: Any) -> None:
        found, exact = self._published.model.unscaled_errors, self._exact
        if found is None or exact.rank < self._p + self._intercept:
            return
        for j in range(0 if self._intercept else 1, self._p + 1):
            expected = mpmath.sqrt(exact.variances[j])
            if expected > 0:
                self._observe("standard error", abs(found[j] - expected), relative * expected)

    def _check_intercept(self) -> None:
        """Check that the intercept and the prediction at the shift belong to the same model."""
        model, shift = self._published.model, self._statistics.shift[: self._p]
        assert model.centre_prediction is not None
        for k in range(len(model.intercept)):
            products = [mpmath.mpf(a) * mpmath.mpf(b) for a, b in zip(model.coef[k], shift, strict=True)]
            size = abs(model.centre_prediction[k]) + sum(abs(value) for value in products)
            off = model.intercept[k] + sum(products) - model.centre_prediction[k]
            tiny = self._exact.target_spreads[k] * mpmath.mpf(10) ** -40  # rounding of zero in 400 bits
            self._observe("intercept", abs(off), 8 * EPSILON * size + tiny + 5e-324)


def run(seed: int) -> Report:
    """Run the sequence of a seed."""
    return Sequence(seed).run()


def run_all(seeds: range, processes: int = 1) -> Iterator[Report]:
    if processes == 1:
        yield from map(run, seeds)
        return
    with multiprocessing.Pool(processes) as pool:
        yield from pool.imap(run, seeds, chunksize=20)


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(sequences: int = 20_000, first: int = 0, processes: int = 1) -> int:
    """Run sequences, print the results, and return the exit status."""
    whole = Report()
    for index, report in enumerate(run_all(range(first, first + sequences), processes), 1):
        whole.add(report)
        for violation in report.violations:
            _print(violation)
        if index % 1000 == 0:
            _print(f"{index} sequences: {dict(whole.counts)}")
    for name, count in sorted(whole.counts.items()):
        _print(f"{count:8d} {name}")
    for name, (ratio, seed) in sorted(whole.worst.items()):
        _print(f"{ratio:8.2g} of its bound at most: {name} (seed {seed})")
    return 1 if whole.violations else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
