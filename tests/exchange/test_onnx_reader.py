"""Linear models of ONNX files: those of skl2onnx predict what scikit-learn does, and ours come back as they were."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from exported import TABLES, centred_version, rows_with_gaps, version_of
from onnx import TensorProto, helper, numpy_helper
from onnx_run import run_onnx
from portables import factors, predictions
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import BayesianRidge, Lasso, LinearRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, PolynomialFeatures, RobustScaler, StandardScaler

from app.errors import InvalidInput
from app.exchange.imported import ImportedModel
from app.exchange.onnx.reader import OnnxImport
from app.exchange.onnx.writer import OnnxExport
from app.exchange.portable import PortableModel

READER = OnnxImport()
RANDOM = np.random.default_rng(3)
X = RANDOM.normal(5, 3, (60, 3))
Y = np.column_stack([X @ [1.0, -2.0, 3.0] + 4, X @ [0.5, 0.0, 1.0]]) + RANDOM.normal(size=(60, 2))
NAMED = {"features": "a,b,c"}


def test_a_model_in_centred_form_comes_back_equal() -> None:
    version = centred_version()
    expected = PortableModel.of(version)
    found = READER.read(OnnxExport().write(version, {}), {}).portable
    assert found.centre is not None
    assert found.start is not None
    np.testing.assert_array_equal(found.centre, expected.centre)
    np.testing.assert_array_equal(found.start, expected.start)
    np.testing.assert_array_equal(found.coef, expected.coef)


@pytest.mark.parametrize("name", TABLES)
def test_a_model_that_linserve_wrote_comes_back_equal(name: str) -> None:
    version = version_of(name)
    expected = PortableModel.of(version)
    imported = READER.read(OnnxExport().write(version, {}), {})
    found = imported.portable
    assert [replace(column, fill=None) for column in found.table.features] == [
        replace(column, fill=None) for column in expected.table.features
    ]
    assert factors(found) == factors(expected)
    assert found.targets == expected.targets
    np.testing.assert_array_equal(found.coef, expected.coef)
    np.testing.assert_array_equal(
        predictions(found, rows_with_gaps(version)), predictions(expected, rows_with_gaps(version))
    )
    assert imported.warnings == ()
    assert imported.source.startswith("ONNX Linserve")


def read(estimator: Any, kind: type = DoubleTensorType, options: dict[str, str] | None = None) -> ImportedModel:
    graph = to_onnx(estimator, initial_types=[("X", kind([None, X.shape[1]]))])
    return READER.read(graph.SerializeToString(), NAMED if options is None else options)


IN_FLOAT = {"without an intercept": LinearRegression(fit_intercept=False)}  # skl2onnx 1.20 cannot write it in double
ESTIMATORS = {
    "LinearRegression": LinearRegression(),
    "Ridge": Ridge(alpha=2.0),
    "Lasso": Lasso(alpha=0.1),
    "StandardScaler": make_pipeline(StandardScaler(), LinearRegression()),
    "two scalers": make_pipeline(StandardScaler(), MinMaxScaler(), Ridge()),
    "RobustScaler": make_pipeline(RobustScaler(), Ridge()),
    "PolynomialFeatures": make_pipeline(PolynomialFeatures(3), Ridge()),
    "scaled PolynomialFeatures": make_pipeline(StandardScaler(), PolynomialFeatures(2, include_bias=False), Ridge()),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_in_double_predicts_what_scikit_learn_does(name: str) -> None:
    estimator = ESTIMATORS[name].fit(X, Y)
    imported = read(estimator, DoubleTensorType)
    found = predictions(imported.portable, X.tolist())
    np.testing.assert_allclose(found, estimator.predict(X), rtol=1e-11, atol=1e-11)
    assert imported.portable.targets == ("variable_1", "variable_2")


def test_lost_digits_of_products_of_scaled_columns_are_a_warning_or_a_refusal() -> None:
    estimator = make_pipeline(StandardScaler(), PolynomialFeatures(3), Ridge())
    far = X + 5e3
    imported = read(estimator.fit(far, Y), DoubleTensorType)
    error = np.abs(predictions(imported.portable, far.tolist()) - estimator.predict(far)).max()
    (loss,) = [float(text.split(" about ")[1].split()[0]) for text in imported.warnings if "their spread" in text]
    assert 1e-9 < error < 100 * loss * np.ptp(Y)
    with pytest.raises(InvalidInput, match="far from 0 compared with their spread"):
        read(estimator.fit(X + 1e8, Y), DoubleTensorType)
    near = make_pipeline(StandardScaler(with_std=False), PolynomialFeatures(3), LinearRegression())
    assert not any("their spread" in text for text in read(near.fit(1e4 * X, Y), DoubleTensorType).warnings)


def test_products_of_centred_columns_of_unknown_spread_have_a_warning_with_the_spread_that_is_enough() -> None:
    def spread_of(estimator: Any, x: Any) -> tuple[float | None, float]:
        imported = read(estimator.fit(x, Y), DoubleTensorType)
        error = np.abs(predictions(imported.portable, x.tolist()) - estimator.predict(x)).max()
        found = [text for text in imported.warnings if "does not scale them" in text]
        return (float(found[0].split("less than about ")[1].split(",")[0]) if found else None), error / np.ptp(Y)

    centred = make_pipeline(StandardScaler(with_std=False), PolynomialFeatures(3), LinearRegression())
    for mean in (1e2, 1e4, 1e6):
        enough, loss = spread_of(centred, X + mean)
        assert enough is not None
        assert enough == pytest.approx(6e-3 * mean, rel=0.2)
        assert enough > np.std(X) or loss < 1e-7
    assert loss > 0.01
    assert spread_of(make_pipeline(StandardScaler(with_std=False), LinearRegression()), X + 1e6)[0] is None
    assert spread_of(make_pipeline(PolynomialFeatures(3), LinearRegression()), X)[0] is None


@pytest.mark.parametrize("name", ["without an intercept", "Ridge", "StandardScaler", "two scalers"])
def test_a_graph_in_float32_keeps_its_rounded_coefficients_with_a_warning(name: str) -> None:
    estimator = (ESTIMATORS | IN_FLOAT)[name].fit(X, Y)
    imported = read(estimator, FloatTensorType)
    found = predictions(imported.portable, X.tolist())
    np.testing.assert_allclose(found, estimator.predict(X), rtol=1e-5, atol=1e-5)
    assert any("32-bit coefficients" in warning for warning in imported.warnings)


def test_a_single_target_may_be_named() -> None:
    imported = read(BayesianRidge().fit(X, Y[:, 0]), FloatTensorType, NAMED | {"targets": "yield"})
    assert imported.portable.targets == ("yield",)


def test_an_imputer_becomes_the_constant_of_gaps() -> None:
    estimator = make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), LinearRegression())
    holes = X.copy()
    holes[::7, 1] = np.nan
    imported = read(estimator.fit(holes, Y), FloatTensorType)
    column = imported.portable.table.features[1]
    assert column.missing == "fill"
    assert column.fill == np.float32(np.nanmedian(holes[:, 1]))
    rows = [[None if np.isnan(value) else value for value in row] for row in holes.tolist()]
    found = predictions(imported.portable, rows)
    np.testing.assert_allclose(found, estimator.predict(holes), rtol=1e-5, atol=1e-5)


def frame() -> pd.DataFrame:
    random = np.random.default_rng(4)
    words = {"region": random.choice(["north", "south", "west"], 60), "grade": random.choice([1, 2, 3], 60)}
    return pd.DataFrame({"temp": X[:, 0], "rain": X[:, 1], "unused": X[:, 2], **words})


TYPES = [
    *((name, DoubleTensorType([None, 1])) for name in ("temp", "rain", "unused")),
    ("region", StringTensorType([None, 1])),
    ("grade", Int64TensorType([None, 1])),
]
NUMBERS = ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["temp", "rain"])
WORDS: dict[str, list[tuple[Any, ...]]] = {
    "full": [("words", OneHotEncoder(), ["region"])],
    "zeros for unknown levels": [("words", OneHotEncoder(handle_unknown="ignore"), ["region"])],
    "without the first": [("words", OneHotEncoder(drop="first"), ["region"])],
    "numbers as levels": [("words", OneHotEncoder(), ["region"]), ("grades", OneHotEncoder(drop="first"), ["grade"])],
    "a number passed through": [("words", OneHotEncoder(), ["region"]), ("grades", "passthrough", ["grade"])],
}


@pytest.mark.parametrize("name", WORDS)
def test_a_column_transformer_with_categories_predicts_what_scikit_learn_does(name: str) -> None:
    table = frame()
    pipeline = make_pipeline(ColumnTransformer([NUMBERS, *WORDS[name]]), LinearRegression()).fit(table, Y)
    imported = READER.read(to_onnx(pipeline, initial_types=TYPES).SerializeToString(), {"targets": "apples,oranges"})
    portable = imported.portable
    rows = table.to_dict("records")
    names = [column.name for column in portable.table.features]
    found = predictions(portable, [{name: row[name] for name in names} for row in rows])
    np.testing.assert_allclose(found, pipeline.predict(table), rtol=1e-5, atol=1e-5)
    assert portable.table.features[2].levels == ("north", "south", "west")
    assert any("does not use" in warning and "unused" in warning for warning in imported.warnings)
    assert any("unknown" in warning for warning in imported.warnings) == (name == "zeros for unknown levels")


def graph_of(
    nodes: Sequence[onnx.NodeProto], constants: dict[str, Any] | None = None, inputs: Sequence[Any] = (), width: int = 1
) -> bytes:
    """Return a file whose graph gives y, by default from two doubles a and b."""
    inputs = inputs or [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["N", 1]) for name in ("a", "b")]
    outputs = [helper.make_tensor_value_info("y", TensorProto.DOUBLE, ["N", width])]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "graph", list(inputs), outputs, tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    content: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return content


def node(operator: str, inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), [output], **attributes)


LINEAR: dict[str, tuple[list[onnx.NodeProto], dict[str, Any]]] = {
    "Gemm": (
        [node("Concat", "a b", "x", axis=1), node("Gemm", "x w c", transB=1, alpha=2.0, beta=0.5)],
        {"w": [[1.0, 2.0]], "c": [3.0]},
    ),
    "two layers": (
        [
            node("Concat", "a b", "x", axis=-1),
            node("MatMul", "x w", "h"),
            node("Add", "h c", "i"),
            node("MatMul", "i v"),
        ],
        {"w": [[1.0, 2.0], [3.0, 4.0]], "c": [5.0, 6.0], "v": [[7.0], [8.0]]},
    ),
    "sums of columns": (
        [node("Mul", "a two", "p"), node("Sub", "p b", "q"), node("Div", "q two", "r"), node("Sub", "two r")],
        {"two": 2.0},
    ),
    "an interaction": ([node("Mul", "a b", "p"), node("Add", "p a")], {}),
    "a product of scaled columns": (
        [node("Sub", "a two", "p"), node("Mul", "p two", "q"), node("Mul", "q b")],
        {"two": 2.0},
    ),
    "shapes": (
        [
            node("Concat", "a b", "x", axis=1),
            node("Unsqueeze", "x one", "u"),
            node("Squeeze", "u one", "v"),
            node("Slice", "v zero one one", "first"),
            node("Flatten", "first", "f"),
            helper.make_node("Split", ["v"], ["left", "right"], axis=1),
            node("Add", "f right", "s"),
            node("Reshape", "s shape"),
        ],
        {"zero": [0], "one": [1], "shape": [-1, 1]},
    ),
    "two heads": (
        [
            node("Mul", "a two", "p"),
            node("Gemm", "b one", "q"),
            node("Concat", "p q", "h", axis=1),
            node("MatMul", "h w"),
        ],
        {"two": 2.0, "one": [[3.0]], "w": [[1.0], [-1.0]]},
    ),
}


@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_graph_predicts_what_onnxruntime_does(name: str) -> None:
    nodes, constants = LINEAR[name]
    content = graph_of(nodes, constants)
    a, b = X[:, :1].copy(), X[:, 1:2].copy()
    expected = run_onnx(content, {"a": a, "b": b})
    found = predictions(READER.read(content, {}).portable, np.hstack([a, b]).tolist())
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-12)
