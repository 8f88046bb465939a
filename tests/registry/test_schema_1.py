"""Files of schema 1, written by the code before schema 2: versions of one model, "old".

Version 1 was trained on 12 rows, 2 added 3 rows, 3 took 3 rows out, 4 added them again, and 5 was trained with weights.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from app.data.training_rows import write_matrix
from app.registry.folder.publisher import FolderPublisher
from app.registry.version_file import read
from app.regression.hypothesis_tests import infer
from app.regression.metrics import NOT_RECORDED, why_no_likelihood
from app.regression.solvers import Exact
from app.regression.sufficient_statistics import PRECISION_UNKNOWN, SufficientStatistics
from app.training.pipeline import TrainerContext, train
from app.training.progress import ProgressReporter
from app.training.request import TrainingRequest
from app.training.uploads import UploadStore

FILES = Path(__file__).parent / "schema_1"
YIELDS = np.loadtxt(Path(__file__).parents[2] / "models" / "crop-yield" / "yields.csv", delimiter=",", skiprows=1)


def path(number: int) -> Path:
    return FILES / f"{number:06d}.safetensors"


@pytest.mark.parametrize(("number", "rows"), [(1, 12), (2, 15)])
def test_a_version_of_schema_1_keeps_its_numbers(number: int, rows: int) -> None:
    version = read(path(number))
    design = np.column_stack([np.ones(rows), YIELDS[:rows, :3]])
    coefficients, squares, *_ = np.linalg.lstsq(design, YIELDS[:rows, 3:])
    errors = np.sqrt(np.outer(squares / (rows - 4), np.diag(np.linalg.inv(design.T @ design))))

    assert_allclose(np.column_stack([version.model.intercept, version.model.coef]), coefficients.T, rtol=1e-9)
    assert_allclose(infer(version.model).standard_errors, errors, rtol=1e-7)
    assert_allclose(version.model.residual_norms, np.sqrt(squares), rtol=1e-9)
    assert version.card.inference_unavailable is None
    assert why_no_likelihood(version.model.statistics) is None


@pytest.mark.parametrize("number", [3, 4], ids=["a forget", "an update of a forget"])
def test_a_version_of_schema_1_with_a_forget_in_its_history_has_no_inference(number: int) -> None:
    version = read(path(number))

    assert version.card.inference_unavailable == version.model.inference_unavailable == PRECISION_UNKNOWN
    assert np.isnan(version.model.residual_norms).all()
    assert version.model.unscaled_errors is None
    assert version.card.metrics == {
        "apples": {"r2": None, "adjusted_r2": None, "rmse": None},
        "oranges": {"r2": None, "adjusted_r2": None, "rmse": None},
        "mse": None,
    }
    assert np.isfinite(version.model.predict(YIELDS[:, :3])).all()


def test_an_update_of_schema_1_whose_parent_is_gone_has_no_inference(tmp_path: Path) -> None:
    shutil.copy(path(2), tmp_path)

    assert read(tmp_path / path(2).name).card.inference_unavailable == PRECISION_UNKNOWN


def test_an_update_of_a_version_of_unknown_precision_has_unknown_precision() -> None:
    statistics = read(path(4)).model.statistics
    more = SufficientStatistics.from_rows(YIELDS[:, :3], YIELDS[:, 3:])

    assert statistics.merge(more).untracked
    assert more.merge(statistics).untracked


def test_a_forget_from_a_version_of_unknown_precision_states_no_bounds(tmp_path: Path) -> None:
    workshop = TrainerContext(FolderPublisher(tmp_path / "models"), UploadStore(tmp_path / "spool"), tmp_path)
    shutil.copytree(FILES, tmp_path / "models" / "old")
    workshop.registry.promote("old", 4)
    upload = workshop.spool.new()
    with workshop.spool.open_new(upload) as file:
        write_matrix(file, YIELDS[:2, :3], YIELDS[:2, 3:])
        workshop.spool.sync(file)
    request = TrainingRequest(
        model="old",
        upload=upload,
        format="matrix",
        features=("temp", "rainfall", "humidity"),
        targets=("apples", "oranges"),
        solver=Exact(),
        promote="never",
        fingerprint="",
        mode="forget",
    )

    card = train(request, None, workshop, ProgressReporter(lambda _progress, _curve: None, lambda: False))

    assert card.inference_unavailable == PRECISION_UNKNOWN
    assert (card.precision_loss, card.precision_bounds, card.metrics["mse"]) == (None, None, None)
    assert any(PRECISION_UNKNOWN in warning for warning in card.warnings)


def test_a_weighted_version_of_schema_1_has_inference_but_no_likelihood() -> None:
    version = read(path(5))

    assert np.isfinite(infer(version.model).standard_errors).all()
    assert why_no_likelihood(version.model.statistics) == NOT_RECORDED


def test_versions_of_schema_1_are_served_and_promoted(tmp_path: Path) -> None:
    shutil.copytree(FILES, tmp_path / "old")
    registry = FolderPublisher(tmp_path)
    registry.promote("old", 2)

    version = registry.current("old")

    assert version.card.solver == Exact()
    assert registry.versions("old") == [1, 2, 3, 4, 5]
