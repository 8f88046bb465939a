"""The folds of a cross-validation in a version's file."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from app.errors import ModelFileInvalid
from app.registry.model_card import ModelCard, Validation
from app.registry.tensors import fold_bytes
from app.registry.version_file import checksum, encode, read, read_folds
from app.regression.cross_validation import Folds
from app.regression.linear_model import LinearModel
from app.regression.solvers import Exact
from app.regression.summaries import summarise_folds
from app.regression.training_batch import TrainingBatch

Tensors = dict[str, NDArray[np.float64]]

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(20, 2))
FOLDS = {number: fold for number, fold in summarise_folds([TrainingBatch(ROWS, ROWS[:, :1])], 4).items() if number != 1}
WHOLE = Folds(FOLDS).all_rows
MODEL = LinearModel(
    ("a", "b"),
    ("y",),
    np.array([[1.0, 0.0]]),
    np.array([0.0]),
    WHOLE,
    residual_norms=np.array([0.0]),
    inference_unavailable="no reason",
)
CARD = ModelCard(
    model="line",
    version=3,
    features=("a", "b"),
    targets=("y",),
    created_at="2026-07-01T12:00:00.000Z",
    job="job",
    parent=2,
    solver=Exact(),
    rows=15,
    rank=3,
    condition_number=1.0,
    metrics={"y": {"r2": 1.0, "rmse": 0.0}, "mse": 0.0},
    inference_unavailable="no reason",
    validation=Validation(folds=4, fold_seed=7, groups="site", empty_folds=1, rows=15, stored=True),
)


def stored(folder: Path, content: bytes) -> Path:
    path = folder / "000003.safetensors"
    path.write_bytes(content)
    return path


def test_folds_are_read_back_to_the_last_bit_and_are_no_part_of_a_version(tmp_path: Path) -> None:
    path = stored(tmp_path, encode(CARD, MODEL, FOLDS))

    found = read_folds(path)
    assert list(found) == [0, 2, 3]
    for number, fold in FOLDS.items():
        assert (found[number].rows, found[number].effective_rows) == (fold.rows, fold.effective_rows)
        for name in ("shift", "scale", "factor", "minimum", "maximum"):
            assert_array_equal(getattr(found[number], name), getattr(fold, name), strict=True)
    version = read(path)
    assert version.card == CARD
    assert path.stat().st_size - version.size == fold_bytes(FOLDS)


def test_a_version_without_folds_has_none(tmp_path: Path) -> None:
    assert read_folds(stored(tmp_path, encode(replace(CARD, validation=None), MODEL))) == {}


@pytest.mark.parametrize(
    ("alter", "says"),
    [
        (lambda tensors: tensors.pop("folds.shift"), "not complete"),
        (lambda tensors: tensors.update({"folds.more": np.zeros(3)}), "not complete"),
        (lambda tensors: tensors.update({"folds.factor": np.zeros((2, 4, 4))}), "another type or shape"),
        (lambda tensors: tensors.update({"folds.number": np.array([0.0, 2.0, 4.0])}), "not numbered"),
        (lambda tensors: tensors.update({"folds.number": np.array([2.0, 0.0, 3.0])}), "not numbered"),
        (lambda tensors: tensors.update({"folds.rows": np.array([5.0, 5.0, 6.0])}), "15 rows together"),
        (lambda tensors: tensors.update({"folds.rows": np.array([np.nan, 5.0, 5.0])}), "15 rows together"),
        (lambda tensors: tensors.update({"folds.rows": np.array([5.5, 4.5, 5.0])}), "15 rows together"),
        (lambda tensors: tensors.update({"folds.effective_rows": np.array([np.inf, 5.0, 5.0])}), "not finite"),
    ],
)
def test_folds_that_no_training_stored_are_refused(
    tmp_path: Path, alter: Callable[[Tensors], object], says: str
) -> None:
    path = stored(tmp_path, encode(CARD, MODEL, FOLDS))
    with safe_open(path, framework="np") as file:
        text = file.metadata()["card"]
        tensors: Tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    alter(tensors)
    path.write_bytes(save(tensors, metadata={"card": text, "sha256": checksum(text, tensors)}))

    for reader in (read, read_folds):
        with pytest.raises(ModelFileInvalid, match=says):
            reader(path)


def test_folds_that_the_card_does_not_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileInvalid, match="does not name"):
        read(stored(tmp_path, encode(replace(CARD, validation=None), MODEL, FOLDS)))
