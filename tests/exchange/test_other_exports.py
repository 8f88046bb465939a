"""Exports that Linserve or PyTorch read again: safetensors, JSON and the version file."""

import json
from typing import Any

import numpy as np
import pytest
from export_runs import predictions_of_torch
from exported import TABLES, assert_as_served, rows_with_gaps, version_of
from mixed import version_of_table
from safetensors import safe_open
from trained import model_of
from trained import version_of as version_of_model

from app.data.columns.schema import Column, TableSchema
from app.exchange import EXPORTS
from app.exchange.imported import Covariance, ImportedModel
from app.exchange.json_reader import JsonImport
from app.exchange.json_writer import JsonExport
from app.exchange.portable import PortableModel
from app.exchange.publishing import to_version
from app.exchange.safetensors_writer import SafetensorsExport
from app.registry.origin import Imported
from app.registry.version_file import Version
from app.regression.hypothesis_tests import covariances, infer


def imported(found: ImportedModel, name: str = "json") -> Version:
    return to_version(found, "model", Imported(name, "coefficients"))


@pytest.mark.parametrize("name", TABLES)
def test_nn_linear_takes_the_state_dict_and_the_encoded_columns(name: str) -> None:
    version = version_of(name)
    rows = rows_with_gaps(version)
    assert_as_served(predictions_of_torch(SafetensorsExport().write(version, {}), version, rows), version, rows)


def test_the_metadata_name_the_columns_and_what_is_not_carried(tmp_path: Any) -> None:
    version, export = version_of("every kind"), SafetensorsExport()
    path = tmp_path / "model.safetensors"
    path.write_bytes(export.write(version, {}))
    with safe_open(path, framework="np") as stored:
        metadata = stored.metadata()
    assert metadata["format"] == "pt"
    assert json.loads(metadata["columns"]) == list(version.model.columns)
    assert json.loads(metadata["targets"]) == ["mass"]
    assert json.loads(metadata["not_carried"]) == list(export.not_carried(version))
    assert any("encoding of categories" in sentence for sentence in export.not_carried(version))
    assert not any("encoding of categories" in sentence for sentence in export.not_carried(version_of("numbers")))


def test_a_version_far_from_zero_keeps_its_centre_in_json() -> None:
    rng = np.random.default_rng(5)
    x = 1e9 + rng.normal(0, 1, (50, 2))
    version = version_of_model(model_of(x, x @ [[1.0], [-1.0]] + rng.normal(0, 1e-3, (50, 1))))
    assert version.model.centre is not None
    again = imported(JsonImport().read(JsonExport().write(version, {}), {}))
    np.testing.assert_array_equal(again.model.predict(x), version.model.predict(x))
    assert any("centre" in sentence for sentence in SafetensorsExport().not_carried(version))


def test_a_version_without_statistics_comes_back_without_them() -> None:
    table = TableSchema((Column("a"), Column("c", "category", ("x", "y"))), (Column("y"),))
    version = imported(ImportedModel(PortableModel(table, np.array([[1.5, -2.0]]), np.array([0.25]))))
    content = json.loads(JsonExport().write(version, {}))
    assert content["format"] == "linserve-model/1"
    assert not {"statistics", "covariance"} & content.keys()
    again = imported(JsonImport().read(json.dumps(content).encode(), {}))
    np.testing.assert_array_equal(again.model.coef, version.model.coef)
    assert again.card.imported is not None
    assert again.card.imported.given == "coefficients"


def test_a_version_with_a_covariance_comes_back_with_it() -> None:
    version = version_of_table(TableSchema((Column("a"), Column("b")), (Column("y"),)))
    model, card = version.model, json.loads(JsonExport().write(version, {}))

    given = Covariance(covariances(model, infer(model)), float(model.degrees_of_freedom), model.residual_norms**2)
    first = imported(ImportedModel(PortableModel.of(version), covariance=given))
    content = json.loads(JsonExport().write(first, {}))
    assert "statistics" in card
    assert "statistics" not in content
    np.testing.assert_allclose(content["covariance"], given.covariance, rtol=1e-9)
    again = imported(JsonImport().read(json.dumps(content).encode(), {}))
    x = np.array([[41.0, 38.0]])
    np.testing.assert_allclose(again.model.interval(x, 0.9), version.model.interval(x, 0.9), rtol=1e-9)


def test_every_export_of_a_version_without_statistics_can_be_written() -> None:
    table = TableSchema((Column("a"), Column("d", "date"), Column("c", "category", ("x", "y"))), (Column("y"),))
    version = imported(ImportedModel(PortableModel(table, np.array([[1.5, 2.0, -2.0]]), np.array([0.25]))))
    for export in EXPORTS:
        options = {option: values[0] if values else "" for option, values in export.options.items()}
        assert export.write(version, options)
        assert not any("statistics" in sentence for sentence in export.not_carried(version)) or export.name == "onnx"
