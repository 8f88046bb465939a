"""The shares, kinds of weights and options of the solver that updates and forgets inherit from their base."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.testing import assert_allclose

from app.data.batch import Array
from app.data.training_rows import write_matrix
from app.errors import InvalidInput
from app.registry.folder.publisher import FolderPublisher
from app.registry.model_card import ModelCard
from app.regression.downdate import downdate
from app.regression.hypothesis_tests import infer
from app.regression.least_squares import fit
from app.regression.linear_model import LinearModel
from app.regression.solvers import Exact, GradientDescent
from app.regression.sufficient_statistics import SufficientStatistics, WeightKind
from app.regression.summaries import summarise
from app.regression.training_batch import TrainingBatch
from app.training.pipeline import TrainerContext, train
from app.training.progress import ProgressReporter
from app.training.request import TrainingRequest
from app.training.uploads import UploadStore

RANDOM = np.random.default_rng(11)
X = RANDOM.normal(size=(40, 2)) * [3.0, 0.5] + [1.0, 20.0]
Y = X @ [[2.0], [-0.5]] + RANDOM.normal(size=(40, 1))
OLD, NEW = slice(0, 25), slice(25, 40)
TIMES: Array = np.array([1.0, 2.0, 3.0, 1.0] * 10)
DAYS = 4


class Published(datetime):
    """The clock when versions are published."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "Published":
        return cls(2026, 1, 1, tzinfo=tz)


class Updated(datetime):
    """The clock when they are built on, DAYS days later."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "Updated":
        return cls(2026, 1, 1 + DAYS, tzinfo=tz)


@pytest.fixture
def days_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.training.card.datetime", Published)
    monkeypatch.setattr("app.training.parent.datetime", Updated)


class Line:
    """The versions of one model, each trained and made current."""

    def __init__(self, folder: Path) -> None:
        models = folder / "models"
        models.mkdir()
        self.context = TrainerContext(FolderPublisher(models), UploadStore(folder / "spool"), folder / "checkpoints")

    def request(self, x: Array, y: Array, weights: Array | None = None, **options: Any) -> TrainingRequest:
        upload = self.context.spool.new()
        with self.context.spool.open_new(upload) as file:
            write_matrix(file, x, y, *([] if weights is None else [weights[:, np.newaxis]]))
        plain = TrainingRequest(
            model="m",
            upload=upload,
            format="matrix",
            features=("a", "b"),
            targets=("y",),
            solver=Exact(),
            promote="always",
            fingerprint="",
            weight=None if weights is None else "sample_weights",
        )
        return replace(plain, **options)

    def run(self, request: TrainingRequest) -> ModelCard:
        card = train(request, None, self.context, ProgressReporter(lambda *_: None, lambda: False))
        self.context.registry.promote("m", card.version)
        return card

    def train(self, rows: slice, weights: Array | None = None, **options: Any) -> ModelCard:
        return self.run(self.request(X[rows], Y[rows], weights, **options))

    def refused(self, rows: slice, weights: Array | None = None, **options: Any) -> InvalidInput:
        with pytest.raises(InvalidInput) as raised:
            self.train(rows, weights, **options)
        return raised.value

    @property
    def model(self) -> LinearModel:
        return self.context.registry.current("m").model


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path)


def statistics(rows: slice, weights: Array | None = None, kind: WeightKind = "precision") -> SufficientStatistics:
    return summarise([TrainingBatch(X[rows], Y[rows], weights)], weight_kind=kind)


def assert_fits(model: LinearModel, expected: SufficientStatistics) -> None:
    best = fit(expected, Exact())
    assert_allclose(model.coef, best.coef, rtol=1e-9)
    assert_allclose(model.intercept, best.intercept, rtol=1e-9)
    assert_allclose(model.residual_norms, best.residual_norms, rtol=1e-9)
    assert model.unscaled_errors is not None
    assert_allclose(model.unscaled_errors, best.unscaled_errors, rtol=1e-9)
    assert model.degrees_of_freedom == pytest.approx(expected.effective_rows - best.design.rank, rel=1e-9)


@pytest.mark.usefixtures("days_pass")
@pytest.mark.parametrize("by", ["trained_in", "share"])
def test_an_old_row_that_decayed_is_forgotten_with_the_weight_that_is_left(line: Line, by: str) -> None:
    line.train(OLD)
    share = (line.train(NEW, mode="update", decay=0.8).shares or {})[1]
    assert share == pytest.approx(0.8**4, rel=1e-15)

    by_one: dict[str, Any] = {by: 1 if by == "trained_in" else share}
    card = line.train(slice(0, 1), None, mode="forget", **by_one)

    assert card.shares == {1: share, 2: 1.0}
    assert card.rows == 39
    weights = np.where(np.arange(40) < 25, share, 1.0)[1:]
    scratch = fit(statistics(slice(1, 40), weights), Exact())
    assert_allclose(line.model.coef, scratch.coef, rtol=1e-9)
    assert_allclose(line.model.intercept, scratch.intercept, rtol=1e-9)
    assert_fits(line.model, statistics(slice(1, 25)).discounted_by(share).merge(statistics(NEW)))


@pytest.mark.usefixtures("days_pass")
def test_shares_multiply_from_update_to_update_and_a_replacement_resets_them(line: Line) -> None:
    assert line.train(slice(0, 10)).shares == {1: 1.0}
    first = line.train(slice(10, 20), mode="update", decay=0.9).shares
    second = line.train(slice(20, 30), mode="update", decay=0.5).shares
    third = line.train(slice(30, 40), mode="update").shares

    assert first == {1: pytest.approx(0.9**4, rel=1e-15), 2: 1.0}
    assert second == {1: pytest.approx(0.45**4, rel=1e-15), 2: pytest.approx(0.5**4, rel=1e-15), 3: 1.0}
    assert third == {**second, 4: 1.0}
    assert line.train(slice(0, 30)).shares == {5: 1.0}


@pytest.mark.usefixtures("days_pass")
def test_all_old_rows_can_be_forgotten_after_decay(line: Line) -> None:
    line.train(OLD)
    line.train(NEW, mode="update", decay=0.8)

    line.train(OLD, mode="forget", trained_in=1)

    new = fit(statistics(NEW), Exact())
    assert_allclose(line.model.coef, new.coef, rtol=1e-9)
    assert_allclose(line.model.intercept, new.intercept, rtol=1e-9)
    assert line.model.degrees_of_freedom == pytest.approx(15 - 3)


@pytest.mark.usefixtures("days_pass")
@pytest.mark.parametrize("rows", [slice(0, 1), OLD], ids=["one old row", "all old rows"])
def test_after_decay_a_whole_row_is_never_taken_out_by_default(line: Line, rows: slice) -> None:
    line.train(OLD)
    line.train(NEW, mode="update", decay=0.8)

    error = line.refused(rows, mode="forget")

    assert "Give `trained_in`" in error.message
    assert "version 2: 1, version 1: 0.4096" in error.message
    assert "not among" not in error.message


@pytest.mark.usefixtures("days_pass")
def test_a_share_too_large_is_named_as_a_possible_reason(line: Line) -> None:
    line.train(OLD)
    line.train(NEW, mode="update", decay=0.8)

    error = line.refused(OLD, mode="forget", share=1.0)

    assert "If they are, decay has left less than 1 of their weight; check `trained_in` or `share`." in error.message


@pytest.mark.usefixtures("days_pass")
def test_rows_are_whole_until_something_decays(line: Line) -> None:
    line.train(OLD)
    line.train(NEW, mode="update")

    assert line.train(slice(0, 1), mode="forget").shares == {1: 1.0, 2: 1.0}
    line.train(slice(25, 26), mode="forget", trained_in=2)

    assert_fits(line.model, statistics(slice(1, 25)).merge(statistics(slice(26, 40))))


@pytest.mark.usefixtures("days_pass")
def test_trained_in_refers_to_the_version_that_is_current_when_the_job_runs(line: Line) -> None:
    line.train(OLD)
    line.train(NEW, mode="update", decay=0.8)
    waiting = line.request(X[:1], Y[:1], mode="forget", trained_in=1)
    line.train(slice(0, 40))  # replaces both

    with pytest.raises(InvalidInput, match=r"Version 3 holds no rows that were added in version 1\. .*: version 3\."):
        line.run(waiting)


@pytest.mark.usefixtures("days_pass")
def test_residual_degrees_of_freedom_of_each_kind_of_weights(line: Line) -> None:
    line.train(slice(0, 40), TIMES)
    assert line.model.degrees_of_freedom == 40 - 3

    line.train(slice(0, 40), TIMES, weight_kind="frequency")
    assert line.model.degrees_of_freedom == TIMES.sum() - 3

    line.train(OLD)
    line.train(NEW, mode="update", decay=0.8)
    assert line.model.degrees_of_freedom == pytest.approx(15 + 25 * 0.8**4 - 3)


def test_frequency_weights_equal_repeated_rows_through_update_and_forget(line: Line) -> None:
    line.train(OLD, TIMES[OLD], weight_kind="frequency")
    line.train(NEW, TIMES[NEW], mode="update")
    card = line.train(slice(0, 2), TIMES[:2], mode="forget")

    assert card.weight_kind == "frequency"
    rest = np.repeat(np.arange(2, 40), TIMES[2:].astype(int))
    repeated = summarise([TrainingBatch(X[rest], Y[rest])])
    assert_fits(line.model, repeated)
    assert line.model.residual_deviation == pytest.approx(
        fit(repeated, Exact()).residual_norms / np.sqrt(len(rest) - 3), rel=1e-9
    )


@pytest.mark.parametrize("solver", [GradientDescent(device="cpu"), GradientDescent(device="cpu", batch_size=8)])
def test_gradient_descent_knows_the_kind_of_its_weights(line: Line, solver: GradientDescent) -> None:
    card = line.train(slice(0, 40), TIMES, weight_kind="frequency", solver=solver)

    assert card.weight_kind == "frequency"
    assert line.model.degrees_of_freedom == TIMES.sum() - 3


@pytest.mark.parametrize("mode", ["update", "forget"])
def test_another_kind_of_weights_than_the_base_has_is_refused_by_the_job(line: Line, mode: str) -> None:
    line.train(slice(0, 40), weight_kind="frequency")

    error = line.refused(slice(0, 5), mode=mode, weight_kind="precision")

    assert "has frequency weights, and this request asks for precision weights." in error.message
    assert error.details[0].pointer == "/weight_kind"


def test_weights_must_be_whole_if_the_base_has_become_one_of_frequency_weights(line: Line) -> None:
    line.train(OLD)
    waiting = line.request(X[NEW], Y[NEW], np.where(np.arange(15) == 4, 2.5, 1.0), mode="update")
    line.train(OLD, weight_kind="frequency")

    with pytest.raises(InvalidInput, match=r'Row 5, column "sample_weights": A frequency weight is a whole number'):
        line.run(waiting)


@pytest.mark.parametrize("mode", ["update", "forget"])
@pytest.mark.parametrize("parent", [Exact(l2=1.0), Exact(fit_intercept=False), Exact(l2=2.5, fit_intercept=False)])
def test_the_parents_penalty_and_intercept_are_inherited(line: Line, parent: Exact, mode: str) -> None:
    line.train(slice(0, 40) if mode == "forget" else OLD, solver=parent)

    card = line.train(NEW, mode=mode, inherits=("l2", "fit_intercept"))

    assert card.solver == parent
    assert not any("parent" in warning for warning in card.warnings)
    whole = statistics(OLD).merge(statistics(NEW))
    expected = whole if mode == "update" else downdate(statistics(slice(0, 40)), statistics(NEW))
    assert_allclose(line.model.coef, fit(expected, parent).coef, rtol=1e-9)


def test_other_options_than_the_parents_are_used_with_a_warning(line: Line) -> None:
    line.train(OLD, solver=Exact(l2=1.0))

    card = line.train(NEW, mode="update", solver=Exact(fit_intercept=False))

    assert card.solver == Exact(fit_intercept=False)
    assert card.warnings[:2] == (
        "The parent was fitted with l2=1; this version with l2=0, as requested.",
        "The parent was fitted with an intercept; this version without one, as requested.",
    )


def test_each_option_is_inherited_independently(line: Line) -> None:
    line.train(OLD, solver=Exact(l2=1.0, fit_intercept=False))

    card = line.train(NEW, mode="update", solver=Exact(l2=3.0), inherits=("fit_intercept",))

    assert card.solver == Exact(l2=3.0, fit_intercept=False)
    assert card.warnings[0] == "The parent was fitted with l2=1; this version with l2=3, as requested."


def test_a_penalty_that_cross_validation_chose_is_inherited_as_a_number(line: Line) -> None:
    chosen = line.train(OLD, folds=5, choose_l2=True).solver
    assert isinstance(chosen, Exact)

    card = line.train(NEW, mode="update", inherits=("l2", "fit_intercept"))

    assert card.solver == chosen


def test_a_parent_from_gradient_descent_gives_the_defaults(line: Line) -> None:
    line.train(OLD, solver=GradientDescent(device="cpu"))

    card = line.train(NEW, mode="update", inherits=("l2", "fit_intercept"))

    assert card.solver == Exact()
    assert_fits(line.model, statistics(OLD).merge(statistics(NEW)))


def test_a_request_recorded_before_these_options_runs_as_it_was_recorded(line: Line) -> None:
    line.train(OLD, solver=Exact(l2=1.0))
    plain = line.request(X[NEW], Y[NEW], mode="update").to_json()
    for name in ("weight_kind", "inherits", "trained_in", "share"):
        del plain[name]

    card = line.run(TrainingRequest.from_json(msgspec.json.decode(msgspec.json.encode(plain))))

    assert card.solver == Exact()
    assert card.weight_kind == "precision"


def published(line: Line, *cards: ModelCard) -> Iterator[Any]:
    """All numbers that a client can see of these versions and of the last one's predictions."""
    for card in cards:
        yield card.metrics, card.rank, card.condition_number, card.warnings, card.inference_unavailable
    model = line.model
    yield model.coef, model.intercept, model.leverage(X)
    if model.inference_unavailable is None:
        inference = infer(model)
        yield vars(inference), model.interval(X, 0.95), model.interval(X, 0.9, of_mean=True)


def leaves(value: Any) -> Iterator[Any]:
    """The values in nested dictionaries, sequences and arrays, one after the other."""
    if isinstance(value, dict):
        value = [part for item in value.items() for part in item]
    if isinstance(value, list | tuple | np.ndarray):
        for part in value:
            yield from leaves(part)
    else:
        yield value


@pytest.mark.parametrize("constant", [100.0, 1 / 200, 1e-6])
@pytest.mark.parametrize("solver", [Exact(), Exact(l2=2.0), Exact(fit_intercept=False)])
@pytest.mark.usefixtures("days_pass")
def test_a_common_factor_of_all_precision_weights_changes_nothing(
    tmp_path: Path, solver: Exact, constant: float
) -> None:
    weights = np.random.default_rng(1).uniform(0.5, 2.0, size=40)
    found = []
    for name, factor in (("plain", 1.0), ("scaled", constant)):
        folder = tmp_path / name
        folder.mkdir()
        line = Line(folder)
        first = line.train(slice(0, 20), factor * weights[:20], solver=solver, folds=5)
        second = line.train(slice(20, 30), factor * weights[20:30], mode="update", solver=solver, decay=0.9)
        third = line.train(slice(30, 40), factor * weights[30:40], mode="update", solver=solver)
        last = line.train(slice(3, 5), factor * weights[3:5], mode="forget", solver=solver, trained_in=1)
        found.append(list(leaves(list(published(line, first, second, third, last)))))

    plain, scaled = found
    assert len(plain) > 100
    for one, other in zip(plain, scaled, strict=True):
        assert one == (pytest.approx(other, rel=1e-9, nan_ok=True) if isinstance(other, float) else other)
