"""Statistics of parts of the rows, made apart and merged."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from app.regression.errors import InvalidData
from app.regression.fit import ArrayData, FragmentedData, fit_model
from app.regression.folds import FoldOptions
from app.regression.solvers import Exact
from app.regression.sufficient_statistics import SufficientStatistics
from app.regression.summary_plan import SummaryPlan, merge_summaries, summarise_batches
from app.regression.training_batch import TrainingBatch

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(1000, 3))
Y = X @ RANDOM.normal(size=(3, 2)) + RANDOM.normal(size=(1000, 2))
FEATURES, TARGETS = ("a", "b", "c"), ("y", "z")


@dataclass(frozen=True, eq=False)
class InParts(ArrayData):
    """Rows that are summarised in parts of 300, each of which arrives in batches of 70."""

    def summarise(self, plan: SummaryPlan, rows_read: Callable[[int], None]) -> dict[int, SufficientStatistics]:
        parts = []
        for start in range(0, len(self.x), 300):
            part = TrainingBatch(self.x[start : start + 300], self.y[start : start + 300])
            batches = [part.select(slice(first, first + 70)) for first in range(0, len(part.x), 70)]
            sent = pickle.loads(pickle.dumps(replace(plan, first=plan.first + start)))  # noqa: S301 - made here
            parts.append(summarise_batches(sent, batches))
            rows_read(start + len(part.x))
        return merge_summaries(parts)


@pytest.mark.parametrize("terms", [(), ("a", "a:b", "c^2")])
def test_rows_in_parts_give_the_model_and_the_folds_of_all_rows(terms: tuple[str, ...]) -> None:
    data, folds = InParts(X, Y, FEATURES, TARGETS, terms=terms), FoldOptions(4, seed=3)
    assert isinstance(data, FragmentedData)
    whole = fit_model(ArrayData(X, Y, FEATURES, TARGETS, terms=terms), Exact(), folds=folds)

    found = fit_model(data, Exact(), folds=folds)

    assert_allclose(found.model.coef, whole.model.coef, rtol=1e-11)
    assert found.validation is not None
    assert whole.validation is not None
    assert list(found.validation.folds) == [0, 1, 2, 3]
    for fold, statistics in found.validation.folds.items():
        assert_array_equal(statistics.minimum, whole.validation.folds[fold].minimum)
    assert_allclose(found.validation.result.residual_norms, whole.validation.result.residual_norms, rtol=1e-11)


def test_a_part_without_rows_changes_nothing_and_no_rows_at_all_are_refused() -> None:
    plan = SummaryPlan(FEATURES)
    nothing = summarise_batches(plan, [TrainingBatch(X[:5], Y[:5], np.zeros(5))])
    some = summarise_batches(plan, [TrainingBatch(X, Y)])

    assert nothing == {}
    assert merge_summaries([nothing, some, nothing]) == some
    with pytest.raises(InvalidData, match="no rows"):
        merge_summaries([nothing, nothing])
    with pytest.raises(InvalidData, match="no rows"):
        fit_model(InParts(X[:0], Y[:0], FEATURES, TARGETS), Exact())


def test_parts_are_merged_pairwise_in_their_order() -> None:
    plan = SummaryPlan(FEATURES)
    a, b, c = (summarise_batches(plan, [TrainingBatch(X[i::3], Y[i::3])]) for i in range(3))

    assert_array_equal(merge_summaries([a, b, c])[0].factor, a[0].merge(b[0]).merge(c[0]).factor)
