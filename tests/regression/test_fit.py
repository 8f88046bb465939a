"""Fits without a queue, a file or a request."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from app.regression.errors import FitError, InvalidData, InvalidOption, InvalidTerms
from app.regression.fit import ArrayData, Base, FitResult, fit_model
from app.regression.folds import FoldOptions
from app.regression.least_squares import fit
from app.regression.solvers import Exact, GradientDescent, Solver
from app.regression.solvers.base import FitObserver, TrainingState
from app.regression.training_batch import TrainingBatch

YIELDS = np.loadtxt(Path(__file__).parents[2] / "models" / "crop-yield" / "yields.csv", delimiter=",", skiprows=1)
DATA = ArrayData(YIELDS[:, :3], YIELDS[:, 3:], ("temp", "rainfall", "humidity"), ("apples", "oranges"))
ON_CPU = GradientDescent(device="cpu")


@dataclass(frozen=True, eq=False)
class Counted(ArrayData):
    """Rows in batches of five that know how often they were read."""

    passes: list[None] = field(default_factory=list)

    def batches(self) -> Iterator[TrainingBatch]:
        self.passes.append(None)
        for start in range(0, len(self.x), 5):
            yield TrainingBatch(self.x[start : start + 5], self.y[start : start + 5])


class Recorder(FitObserver):
    """Notes everything that it is called with."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.states: list[TrainingState] = []

    def rows_read(self, rows: int) -> None:
        self.calls.append(f"{rows} rows")

    def solving(self) -> None:
        self.calls.append("solving")

    def epoch(self, state: TrainingState) -> None:
        self.calls.append(f"epoch {state.epoch}")
        self.states.append(state)


def part(rows: slice) -> ArrayData:
    return replace(DATA, x=DATA.x[rows], y=DATA.y[rows])


def counted() -> Counted:
    return Counted(DATA.x, DATA.y, DATA.features, DATA.targets)


def assert_same_model(found: FitResult, expected: FitResult, rtol: float = 1e-9) -> None:
    assert_allclose(found.model.coef, expected.model.coef, rtol=rtol)
    assert_allclose(found.model.intercept, expected.model.intercept, rtol=rtol)
    assert_allclose(found.model.residual_norms, expected.model.residual_norms, rtol=rtol)
    assert found.statistics.rows == expected.statistics.rows


def test_the_exact_model_of_the_notebook_is_fitted_in_one_line() -> None:
    model = fit_model(DATA, Exact()).model
    assert_allclose(model.predict(np.array([[75.0, 63.0, 44.0]])), [[53.80, 66.81]], atol=5e-3)
    assert (model.features, model.targets) == (DATA.features, DATA.targets)
    assert model.inference_unavailable is None


def test_rows_are_read_once_and_once_more_to_refine_the_fit() -> None:
    data, observer = counted(), Recorder()
    result = fit_model(data, Exact(), observer=observer)
    assert result.refined
    assert len(data.passes) == 2
    assert observer.calls == ["5 rows", "10 rows", "15 rows", "solving", "5 rows", "10 rows", "15 rows"]


def test_an_update_is_the_fit_of_all_rows_and_a_forget_that_of_the_others() -> None:
    old = fit_model(part(slice(9)), Exact())
    both = fit_model(part(slice(9, None)), Exact(), base=Base(old.statistics))
    assert_same_model(both, fit_model(DATA, Exact()))
    less = fit_model(part(slice(9, None)), Exact(), base=Base(both.statistics, "forget"))
    assert_same_model(less, old, rtol=1e-6)
    assert less.bounds is not None


def test_rows_whose_statistics_are_known_are_not_read_again() -> None:
    old = fit_model(DATA, Exact())
    data = counted()
    first = fit_model(data, Exact(), base=Base(old.statistics))
    again = fit_model(data, Exact(l2=1.0), base=Base(old.statistics), summary=first.summary)
    assert len(data.passes) == 1
    assert again.statistics.rows == 30
    fit_model(data, Exact(), folds=FoldOptions(3), summary=first.summary)
    assert len(data.passes) > 1


def test_a_cross_validation_chooses_the_penalty_and_keeps_the_folds_for_the_next_update() -> None:
    folds = FoldOptions(5, choose_l2=True)
    result = fit_model(DATA, Exact(), folds=folds)
    assert isinstance(result.solver, Exact)
    assert result.validation is not None
    assert sorted(result.validation.folds) == [0, 1, 2, 3, 4]
    assert sum(fold.rows for fold in result.validation.folds.values()) == 15
    assert result.validation.apart is None
    base = Base(result.statistics, folds=result.validation.folds)
    updated = fit_model(DATA, result.solver, base=base, folds=replace(folds, choose_l2=False, apart=True))
    assert updated.validation is not None
    assert sum(fold.rows for fold in updated.validation.folds.values()) == 30
    assert updated.validation.apart is not None
    assert updated.validation.data.rows == 15


def test_a_descent_is_observed_and_resumes_to_the_same_bits() -> None:
    solver = replace(ON_CPU, epochs=30, batch_size=4)
    whole, data = Recorder(), counted()
    expected = fit_model(data, solver, observer=whole)
    assert len(data.passes) == 1
    assert whole.calls[:5] == ["5 rows", "10 rows", "15 rows", "solving", "epoch 0"]
    assert whole.calls[-1] == "epoch 30"
    resumed = fit_model(DATA, solver, resume=whole.states[11])
    assert_array_equal(resumed.model.coef, expected.model.coef)


def test_terms_are_the_columns_of_the_model() -> None:
    terms = ("temp", "temp^2")
    model = fit_model(replace(DATA, terms=terms), Exact()).model
    squared = ArrayData(np.column_stack([DATA.x[:, 0], DATA.x[:, 0] ** 2]), DATA.y, terms, DATA.targets)
    assert model.columns == terms
    assert_allclose(model.coef, fit_model(squared, Exact()).model.coef, rtol=1e-9)
    with pytest.raises(InvalidTerms):
        fit_model(replace(DATA, terms=("tmp",)), Exact())


@pytest.mark.parametrize("solver", [Exact(), ON_CPU, replace(ON_CPU, batch_size=4)])
def test_no_rows_are_refused(solver: Solver) -> None:
    with pytest.raises(InvalidData, match="no rows"):
        fit_model(part(slice(0)), solver)


def test_a_descent_takes_neither_a_base_nor_folds() -> None:
    base = Base(fit_model(DATA, Exact()).statistics)
    for options in ({"base": base}, {"folds": FoldOptions(3)}):
        with pytest.raises(InvalidOption) as refused:
            fit_model(DATA, ON_CPU, **options)
        assert refused.value.option == "kind"


def test_an_observer_can_end_a_fit_at_any_call() -> None:
    class Ended(Exception):
        pass

    class Ending(FitObserver):
        def __init__(self, call: str) -> None:
            setattr(self, call, self.end)

        def end(self, *_: object) -> None:
            raise Ended

    for call in ("rows_read", "solving", "epoch", "check_cancelled"):
        with pytest.raises(Ended):
            fit_model(DATA, ON_CPU, observer=Ending(call))


def test_every_error_of_a_fit_is_a_value_error() -> None:
    assert issubclass(FitError, ValueError)


def test_a_fit_that_is_not_refined_is_the_solution_of_the_statistics() -> None:
    result = fit_model(DATA, Exact(l2=0.5))
    assert not result.refined
    assert_array_equal(result.model.coef, fit(result.statistics, Exact(l2=0.5)).coef)
