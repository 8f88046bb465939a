"""Cross-validation across versions: folds that are stored, added to and dropped; and the comparison by them."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from app.data.training_rows import write_matrix
from app.errors import InvalidInput
from app.registry.folder.publisher import FolderPublisher
from app.registry.model_card import ModelCard
from app.regression.folds import permutations
from app.regression.least_squares import fit
from app.regression.solvers import Exact
from app.regression.sufficient_statistics import Array, SufficientStatistics
from app.training.comparison import NOT_UNSEEN, TOO_FEW_FOLDS, WORSE
from app.training.pipeline import TrainerContext, train
from app.training.progress import ProgressReporter
from app.training.request import TrainingRequest
from app.training.uploads import UploadStore


@pytest.fixture
def context(tmp_path: Path) -> TrainerContext:
    (tmp_path / "models").mkdir()
    return TrainerContext(
        FolderPublisher(tmp_path / "models"), UploadStore(tmp_path / "spool"), tmp_path / "checkpoints"
    )


def some_rows(seed: int, rows: int = 60, noise: float = 1.0) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    x = random.normal((3, 50), size=(rows, 2))
    return x, x @ [[1.0], [2.0]] + noise * random.normal(size=(rows, 1))


def trained(context: TrainerContext, rows: tuple[Array, Array], *, current: bool = True, **options: Any) -> ModelCard:
    upload = context.spool.new()
    with context.spool.open_new(upload) as file:
        write_matrix(file, *rows)
    given: dict[str, Any] = {"promote": "never", "solver": Exact(), **options}
    request = TrainingRequest(
        model="m", upload=upload, format="matrix", features=("a", "b"), targets=("y",), fingerprint="", **given
    )
    card = train(request, None, context, ProgressReporter(lambda *_: None, lambda: False))
    if current:
        context.registry.promote("m", card.version)
    return card


def both(*parts: tuple[Array, Array]) -> tuple[Array, Array]:
    return np.vstack([part[0] for part in parts]), np.vstack([part[1] for part in parts])


def cut(rows: tuple[Array, Array], start: int, end: int) -> tuple[Array, Array]:
    return rows[0][start:end], rows[1][start:end]


def assert_same_metrics(found: ModelCard, expected: ModelCard) -> None:
    ours, theirs = found.metrics["cross_validation"], expected.metrics["cross_validation"]
    assert ours["mse"] == pytest.approx(theirs["mse"], rel=1e-9)
    assert ours["y"] == pytest.approx(theirs["y"], rel=1e-9)
    assert ours["folds"] == theirs["folds"]


def test_the_card_has_the_division_of_the_rows(context: TrainerContext) -> None:
    card = trained(context, some_rows(0, 8), folds=10, fold_seed=5)

    assert card.validation is not None
    found = card.validation
    assert (found.folds, found.fold_seed, found.groups, found.empty_folds, found.rows) == (10, 5, None, 2, 8)
    assert found.stored
    assert card.no_folds is None
    assert card.metrics["cross_validation"]["folds"] == 8
    assert sum(fold.rows for fold in context.registry.folds("m", 1).values()) == 8


@pytest.mark.parametrize("cuts", [[33, 40], [1, 2, 3, 59], [7]])
def test_updates_in_the_same_folds_are_validated_as_all_rows_at_once(context: TrainerContext, cuts: list[int]) -> None:
    rows = some_rows(0)
    expected = trained(context, rows, folds=5, fold_seed=2)
    parts = [cut(rows, start, end) for start, end in zip([0, *cuts], [*cuts, 60], strict=True)]
    if cuts[0] == 1:  # one row alone cannot be validated
        parts = [both(*parts[:2]), *parts[2:]]

    card = trained(context, parts[0], folds=5, fold_seed=2)
    for part in parts[1:]:
        card = trained(context, part, mode="update", folds=5, fold_seed=2)

    assert_same_metrics(card, expected)
    assert card.validation is not None
    assert (card.validation.rows, card.validation.stored) == (60, True)
    assert card.warnings == ()


def test_folds_are_decayed_as_all_rows_are(context: TrainerContext, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = some_rows(0), some_rows(1)

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(days=1)

    trained(context, old, folds=5)
    monkeypatch.setattr("app.training.parent.datetime", Later)
    card = trained(context, new, mode="update", folds=5, decay=0.25)

    folds = context.registry.folds("m", card.version)
    weights = [fold.total_weight for fold in folds.values()]
    assert_allclose(weights, 12 * 0.25 + 12, rtol=1e-4)
    model = context.registry.version("m", card.version).model
    assert sum(weights) == pytest.approx(model.statistics.total_weight)
    assert all(fold.discounted for fold in folds.values())


def refitted(base: tuple[Array, Array], new: tuple[Array, Array], folds: dict[int, list[int]]) -> float:
    """The sum of squared errors of models of the base and the other folds, over the new rows."""
    total = 0.0
    for mine in folds.values():
        others = np.setdiff1d(np.arange(len(new[0])), mine)
        x, y = both(base, (new[0][others], new[1][others]))
        found = fit(SufficientStatistics.from_rows(x, y), Exact())
        total += float(((new[1][mine] - new[0][mine] @ found.coef.T - found.intercept) ** 2).sum())
    return total


def folds_of(rows: int, folds: int) -> dict[int, list[int]]:
    mine = permutations(folds, 0, 0, -(-rows // folds)).argsort(axis=1).ravel()[:rows]
    return {fold: np.flatnonzero(mine == fold).tolist() for fold in range(folds)}


@pytest.mark.parametrize(
    ("first", "says"),
    [
        ({}, "Version 1 has no statistics of folds"),
        ({"folds": 4}, "Version 1 was validated with folds 4, fold_seed 0 and no groups"),
        ({"folds": 5, "fold_seed": 1}, "this update with folds 5, fold_seed 0 and no groups"),
    ],
)
def test_an_update_in_other_folds_validates_its_rows_alone_and_gives_the_reason(
    context: TrainerContext, first: dict[str, Any], says: str
) -> None:
    base, new = some_rows(0, 20), some_rows(1, 30)
    trained(context, base, **first)

    card = trained(context, new, mode="update", folds=5)

    expected = refitted(base, new, folds_of(30, 5))
    assert card.metrics["cross_validation"]["mse"] == pytest.approx(expected / 30, rel=1e-9)
    assert card.validation is not None
    assert (card.validation.rows, card.validation.stored) == (30, False)
    assert card.no_folds is not None
    assert says in card.no_folds
    assert card.warnings == (card.no_folds,)
    assert context.registry.folds("m", card.version) == {}


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("forget", "A forget drops the statistics of the folds, because the fold of a forgotten row is not known."),
        ("update", "The rows of this update are in no fold, so the folds of version 1 are not carried on."),
    ],
)
def test_folds_that_are_dropped_are_named_in_the_card(context: TrainerContext, mode: str, says: str) -> None:
    rows = some_rows(0)
    trained(context, rows, folds=5)

    card = trained(context, cut(rows, 0, 3), mode=mode)

    assert (card.no_folds, card.warnings, card.validation) == (says, (says,), None)
    assert context.registry.folds("m", card.version) == {}
    assert trained(context, cut(rows, 3, 5), mode=mode).no_folds is None


def test_folds_of_more_than_64_mib_are_not_stored(context: TrainerContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.training.validation.MAX_FOLD_BYTES", 1000)

    card = trained(context, some_rows(0), folds=5)

    assert card.validation is not None
    assert not card.validation.stored
    assert card.no_folds is not None
    assert "at most" in card.no_folds
    assert context.registry.folds("m", 1) == {}


def test_rows_that_replace_all_others_are_compared_only_if_they_are_unseen(context: TrainerContext) -> None:
    trained(context, some_rows(0, noise=20))

    card = trained(context, some_rows(1), current=False, promote="if_better", folds=10)
    assert (card.beats_current, card.warnings) == (None, (NOT_UNSEEN,))
    card = trained(context, some_rows(1), promote="if_better", folds=10, unseen=True)
    assert (card.beats_current, card.warnings) == (True, ())


def test_the_first_version_is_better_than_no_version(context: TrainerContext) -> None:
    card = trained(context, some_rows(1), promote="if_better", folds=10)

    assert (card.beats_current, card.warnings) == (True, ())


def test_an_update_is_compared_with_its_base_on_its_own_rows(context: TrainerContext) -> None:
    base = some_rows(0, 20)
    trained(context, base)

    good = trained(context, some_rows(1, 200), current=False, mode="update", promote="if_better", folds=10)
    x, y = some_rows(2, 200)
    # A penalty keeps the new version from following any rows.
    bad = trained(context, (x, y), current=False, mode="update", promote="if_better", folds=10, solver=Exact(l2=1000.0))

    assert (good.beats_current, good.warnings) == (True, ())
    difference = "The parent was fitted with l2=0; this version with l2=1000, as requested."
    assert (bad.beats_current, bad.warnings) == (False, (difference, WORSE))


def test_an_update_whose_rows_are_in_one_fold_is_not_compared(context: TrainerContext) -> None:
    trained(context, some_rows(0), folds=10)

    card = trained(context, some_rows(1, 1), mode="update", promote="if_better", folds=10)

    assert (card.beats_current, card.warnings) == (None, (TOO_FEW_FOLDS,))
    assert card.validation is not None
    assert (card.validation.rows, card.validation.stored) == (61, True)


def test_an_update_is_compared_on_the_new_rows_and_its_metrics_are_of_all_rows(context: TrainerContext) -> None:
    old, new = some_rows(0), some_rows(1)
    expected = trained(context, both(old, new), folds=6)
    trained(context, old, folds=6)

    card = trained(context, new, mode="update", promote="if_better", folds=6)

    assert_same_metrics(card, expected)
    assert card.beats_current is not None


@pytest.mark.parametrize(("fit_intercept", "about"), [(True, "mean"), (False, "zero")])
def test_both_r2_of_a_card_are_about_the_same_value(context: TrainerContext, fit_intercept: bool, about: str) -> None:
    """Without an intercept the one was about zero, 0.993, and the other about the mean, -1.17."""
    random = np.random.default_rng(0)
    x = random.normal(10, size=(200, 2))
    y = x @ [[1.0], [1.0]] + 20 + random.normal(size=(200, 1))

    metrics = trained(context, (x, y), folds=10, solver=Exact(fit_intercept=fit_intercept)).metrics

    assert metrics["r2_about"] == about
    assert metrics["cross_validation"]["y"]["r2"] == pytest.approx(metrics["y"]["r2"], abs=0.03)


def test_rows_in_one_group_cannot_be_validated(context: TrainerContext) -> None:
    x, y = some_rows(0, 10)
    upload = context.spool.new()
    with context.spool.open_new(upload) as file:
        write_matrix(file, x, y, np.full((10, 1), 3.0))
    request = TrainingRequest(
        model="m",
        upload=upload,
        format="matrix",
        features=("a", "b"),
        targets=("y",),
        solver=Exact(),
        promote="never",
        fingerprint="",
        folds=5,
        groups="site",
    )

    with pytest.raises(InvalidInput, match="all 10 rows are in one"):
        train(request, None, context, ProgressReporter(lambda *_: None, lambda: False))
