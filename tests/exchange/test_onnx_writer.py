"""ONNX files of models: onnxruntime predicts what the service predicts."""

import msgspec
import numpy as np
import onnx
import pytest
from exported import FAR, TABLES, assert_as_served, centred_version, rows_with_gaps, version_of
from hypothesis import given, settings
from hypothesis import strategies as st
from mixed import version_of_table
from onnx_run import predictions_of_onnx

from app.data.columns.schema import Column, TableSchema
from app.exchange.hints import FEATURES
from app.exchange.onnx.writer import IR_VERSION, OPSET, TARGETS, OnnxExport

EXPORT = OnnxExport()


@pytest.mark.parametrize("name", TABLES)
def test_onnxruntime_predicts_what_the_service_predicts(name: str) -> None:
    version = version_of(name)
    content = EXPORT.write(version, {})
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    rows = rows_with_gaps(version)
    assert_as_served(predictions_of_onnx(content, version, rows), version, rows)


def test_a_model_in_centred_form_keeps_its_digits() -> None:
    version = centred_version()
    x = np.random.default_rng(6).normal(size=(50, 3)) + FAR
    rows = [dict(zip(version.card.features, row, strict=True)) for row in x.tolist()]
    assert_as_served(predictions_of_onnx(EXPORT.write(version, {}), version, rows), version, rows)


def test_the_graph_states_its_versions_its_inputs_and_its_source() -> None:
    version = version_of("every kind")
    model = onnx.load_from_string(EXPORT.write(version, {}))
    assert model.ir_version == IR_VERSION
    assert {opset.domain: opset.version for opset in model.opset_import}[""] == OPSET
    types = {each.name: each.type.tensor_type.elem_type for each in model.graph.input}
    assert types == {
        "species": onnx.TensorProto.STRING,
        "age": onnx.TensorProto.DOUBLE,
        "wild": onnx.TensorProto.BOOL,
        "seen": onnx.TensorProto.DOUBLE,
        "only": onnx.TensorProto.STRING,
    }
    (output,) = model.graph.output
    assert output.name == "predictions"
    assert "days since 1970-01-01" in next(each.doc_string for each in model.graph.input if each.name == "seen").lower()
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert msgspec.json.decode(metadata[TARGETS]) == ["mass"]
    assert [each.get("kind") for each in msgspec.json.decode(metadata[FEATURES])][3] == "date"
    assert (metadata["linserve.model"], metadata["linserve.version"]) == ("model", "1")
    assert metadata["linserve.not_carried"].splitlines() == list(EXPORT.not_carried(version))


def test_names_of_features_never_clash_with_those_of_the_graph() -> None:
    table = TableSchema((Column("columns"), Column("predictions"), Column("start")), (Column("products"),))
    version = version_of_table(table, 30)
    rows = rows_with_gaps(version)
    assert_as_served(predictions_of_onnx(EXPORT.write(version, {}), version, rows), version, rows)


@given(
    st.lists(st.sampled_from(["number", "boolean", "date", "category"]), min_size=1, max_size=4),
    st.lists(st.sampled_from(["drop", "refuse", "fill", "indicator"]), min_size=4, max_size=4),
    st.integers(1, 3),
    st.integers(0, 99),
)
@settings(max_examples=15, deadline=None)
def test_any_table_predicts_the_same(kinds: list[str], policies: list[str], targets: int, seed: int) -> None:
    fills: dict[str, float | str] = {"number": 37.25, "boolean": 1.0, "date": 14000.0, "category": "b"}
    features = tuple(
        Column(
            f"x{place}",
            kind,  # type: ignore[arg-type]
            ("a", "b", "c d") if kind == "category" else (),
            policy,  # type: ignore[arg-type]
            fills[kind] if policy == "fill" or (policy == "indicator" and kind != "category") else None,
        )
        for place, (kind, policy) in enumerate(zip(kinds, policies, strict=False))
    )
    table = TableSchema(features, tuple(Column(f"y{place}") for place in range(targets)))
    version = version_of_table(table, 60)
    rows = rows_with_gaps(version, seed=seed)
    assert_as_served(predictions_of_onnx(EXPORT.write(version, {}), version, rows), version, rows)
