"""Files of every landed format are read. A file of another format is rejected by itself, with its format.

`schema_N` has versions as the code wrote them when N was the number of new files. Those of schema 2 to 4 are, in turn:
12 rows, 3 more, 3 taken out, cross-validated, with a term, a descent, frequency weights, precision weights with a ridge
penalty; in schema 4 also a category, a date and an indicator of gaps. Those of schema 5 are a trained one, a
cross-validated one and one with kinds of columns, then imported ones: coefficients with a centre and a category, a
covariance, and all statistics. `early` has files of the first commits, whose
number is 1 too.
"""

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from safetensors import safe_open
from service import copy_models
from threaded_service import ThreadedService

from app.errors import ModelFileInvalid
from app.registry.folder.publisher import FolderPublisher
from app.registry.model_card import SCHEMA
from app.registry.version_file import encode, read, read_card, read_folds
from app.regression.hypothesis_tests import infer

HERE = Path(__file__).parent
YIELDS = np.loadtxt(Path(__file__).parents[2] / "models" / "crop-yield" / "yields.csv", delimiter=",", skiprows=1)
ROW = {"instances": [[75, 63, 44]]}
WEIGHTS = np.arange(1.0, 16.0)


def path(number: int, schema: int = 2) -> Path:
    return HERE / f"schema_{schema}" / f"{number:06d}.safetensors"


def tensors_in(file: Path) -> set[str]:
    with safe_open(file, framework="np") as stored:
        return set(stored.keys())


@pytest.mark.parametrize("schema", range(1, SCHEMA + 1))
def test_every_format_has_a_fixture_of_which_all_versions_are_served(tmp_path: Path, schema: int) -> None:
    files = sorted((HERE / f"schema_{schema}").glob("*.safetensors"))
    assert files, f"Write versions with the code that introduced format {schema} into tests/registry/schema_{schema}."
    assert {read_card(file).schema for file in files} == {schema}
    shutil.copytree(HERE / f"schema_{schema}", tmp_path / "old")
    registry = FolderPublisher(tmp_path)
    for number in registry.versions("old"):
        registry.promote("old", number)
        model = registry.current("old").model
        assert np.isfinite(model.predict(np.ones((2, len(model.features))))).all()


def test_files_are_written_with_the_tensors_of_their_format_and_no_others(tmp_path: Path) -> None:
    # A tensor that is added, renamed or dropped needs a new number, and a fixture of it.
    written = tmp_path / "written.safetensors"
    for file in sorted((HERE / f"schema_{SCHEMA}").glob("*.safetensors")):
        version = read(file)
        written.write_bytes(encode(version.card, version.model, read_folds(file)))
        assert tensors_in(written) == tensors_in(file)


@pytest.mark.parametrize("schema", [2, 3, 4])
@pytest.mark.parametrize(
    ("number", "rows", "weights"),
    [
        (1, YIELDS[:12], None),
        (2, YIELDS, None),
        (3, YIELDS[3:], None),
        (4, YIELDS, None),
        (7, YIELDS, WEIGHTS),
    ],
)
def test_a_version_of_schema_2_to_4_keeps_its_numbers(
    number: int, rows: np.ndarray, weights: np.ndarray | None, schema: int
) -> None:
    version = read(path(number, schema))
    root = np.ones(len(rows)) if weights is None else np.sqrt(weights)
    observations = len(rows) if weights is None else weights.sum()
    design = np.column_stack([np.ones(len(rows)), rows[:, :3]]) * root[:, None]
    coefficients, squares, *_ = np.linalg.lstsq(design, rows[:, 3:] * root[:, None])
    errors = np.sqrt(np.outer(squares / (observations - 4), np.diag(np.linalg.inv(design.T @ design))))

    assert_allclose(np.column_stack([version.model.intercept, version.model.coef]), coefficients.T, rtol=1e-9)
    assert_allclose(infer(version.model).standard_errors, errors, rtol=1e-7)


@pytest.mark.parametrize("schema", [2, 3, 4])
def test_a_version_of_schema_2_to_4_keeps_what_is_known_of_it(schema: int) -> None:
    cards = {number: read_card(path(number, schema)) for number in range(1, 9)}
    assert [cards[number].mode for number in (1, 2, 3)] == ["replace", "update", "forget"]
    assert read(path(3, schema)).model.statistics.removed is not None
    assert sum(fold.rows for fold in read_folds(path(4, schema)).values()) == 15
    assert cards[5].terms == ("temp", "rainfall", "temp:rainfall")
    assert cards[6].inference_unavailable is not None
    assert (cards[7].weight_kind, cards[8].weight_kind) == ("frequency", "precision")


def test_a_version_of_schema_4_has_the_kinds_of_its_columns_and_older_ones_have_numbers() -> None:
    version = read(path(9, 4))
    assert version.card.features == ("temp", "zone", "day")
    assert version.model.features == ("temp", "temp[missing]", "zone[north]", "zone[south]", "day")
    assert [column.kind for column in version.card.schema_of_rows.features] == ["number", "category", "date"]
    assert version.card.blocks == (slice(1, 2), slice(2, 4))
    older = read_card(path(1, 3))
    assert older.table is None
    assert {column.kind for column in older.schema_of_rows.numbers} == {"number"}
    assert older.columns == older.features


def test_an_imported_version_of_schema_5_keeps_what_it_was_imported_with() -> None:
    versions = {number: read(path(number, 5)) for number in range(1, 7)}
    given = [versions[number].card.imported for number in (4, 5, 6)]
    assert [origin and origin.given for origin in given] == ["coefficients", "covariance", "statistics"]
    assert [versions[number].model.has_statistics for number in (1, 4, 5, 6)] == [True, False, True, True]
    alone, trained = versions[4].model, versions[1].model
    assert alone.predict(np.array([[70.0, 90.0, 1.0]])).tolist() == [[148.5]]
    assert (alone.inference_unavailable, versions[4].card.rows) == ("imported without statistics", 0)
    for number in (5, 6):
        assert_allclose(infer(versions[number].model).standard_errors, infer(trained).standard_errors, rtol=1e-8)
    assert [versions[number].card.has_rows for number in (1, 4, 5, 6)] == [True, False, False, True]


def other_formats(models: Path) -> dict[str, str]:
    """Put a model of each format that is not read into the folder. Return what is said of its file."""
    version = read(path(1))
    contents = {
        "early-1": (HERE / "early" / "without_residuals.safetensors").read_bytes(),
        "early-2": (HERE / "early" / "without_weights.safetensors").read_bytes(),
        "newer": encode(replace(version.card, schema=SCHEMA + 1), version.model),
        "no-format": encode(replace(version.card, schema=0), version.model),
    }
    for model, content in contents.items():
        (models / model).mkdir()
        (models / model / "000001.safetensors").write_bytes(content)
        (models / model / "current").symlink_to("000001.safetensors")
    early = "/000001.safetensors has an early form of format 1, without statistics.count, which is not read. Restore"
    return {
        "early-1": f"early-1{early}",
        "early-2": f"early-2{early}",
        "newer": f"newer/000001.safetensors has format {SCHEMA + 1}; this service reads formats 1 to {SCHEMA}. A newer",
        "no-format": f"no-format/000001.safetensors has format 0; this service reads formats 1 to {SCHEMA}. Restore",
    }


def test_a_file_of_another_format_is_refused_with_its_name_its_format_and_what_to_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = FolderPublisher(tmp_path)
    for model, told in other_formats(tmp_path).items():
        caplog.clear()
        with caplog.at_level(logging.ERROR), pytest.raises(ModelFileInvalid) as refused:
            registry.current(model)
        assert told in refused.value.message
        assert "promote another version" in refused.value.message
        assert [record.__dict__["reason"].startswith(told) for record in caplog.records] == [True]
        with pytest.raises(ModelFileInvalid, match=told[:30]):
            registry.promote(model, 1)


def test_files_of_other_formats_stop_neither_the_service_nor_other_models(tmp_path: Path) -> None:
    told = other_formats(copy_models(tmp_path))
    service = ThreadedService(tmp_path, default_model="newer").start()
    try:
        for path in ("/models/crop-yield/predict", "/models/crop-yield/versions/1/predict"):
            assert service.client.post(path, json=ROW).json()["version"] == 1
        assert [item["model"] for item in service.client.get("/models").json()["items"]] == ["crop-yield"]
        for model, words in told.items():
            answers = [
                service.client.get(f"/models/{model}"),
                service.client.get(f"/models/{model}/versions/1"),
                service.client.post(f"/models/{model}/predict", json=ROW),
                service.client.put(f"/models/{model}/current", json={"version": 1}),
            ]
            for answer in answers:
                assert answer.status_code == 503
                assert words in answer.json()["detail"]
        for answer in (service.client.get("/health/ready"), service.client.post("/predict", json=ROW)):
            assert answer.status_code == 503
            assert told["newer"] in answer.json()["detail"]
        assert service.client.delete("/models/early-1", headers={"if-match": "*"}).status_code == 204
    finally:
        service.stop()
