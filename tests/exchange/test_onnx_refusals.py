"""ONNX files that are not linear, damaged or hostile are refused with a sentence that names the cause."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from resource import RUSAGE_SELF, getrusage
from typing import Any

import numpy as np
import onnx
import pytest
from exchange.test_onnx_reader import LINEAR, graph_of, node
from exported import version_of
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, PolynomialFeatures

from app.errors import InvalidInput
from app.exchange.json_reader import JsonImport
from app.exchange.onnx.reader import OnnxImport
from app.exchange.onnx.writer import OnnxExport

READER = OnnxImport()
TWICE = {
    "features": ["a", "b", "a:b"],
    "terms": ["a", "b", "a:b", "a:b"],
    "targets": ["y"],
    "coefficients": [1, 2, 3, 4],
    "intercept": 0,
}
Nodes = Sequence[onnx.NodeProto]
GRAPHS: dict[str, tuple[Nodes, dict[str, Any], str]] = {
    "an activation": ([node("Sigmoid", "a", name="gate")], {}, r'node Sigmoid \(named "gate"\).*not linear.*MatMul'),
    "a division by a column": ([node("Div", "a b")], {}, "division by a column"),
    "a power that is not an integer": ([node("Pow", "a half")], {"half": 0.5}, "not a whole number"),
    "a large power": ([node("Pow", "a large")], {"large": 21.0}, "Powers from 1 to 20"),
    "rows in another order": ([node("Gather", "a first", axis=0)], {"first": [0]}, "number of the rows"),
    "rows as columns": ([node("Reshape", "a shape")], {"shape": [1, -1]}, "begins with -1 or 0"),
    "a column that does not exist": ([node("Gather", "a far", axis=1)], {"far": [7]}, "does not have"),
    "a constant that is not finite": ([node("Mul", "a endless")], {"endless": np.inf}, "not finite"),
    "a cycle": ([node("Add", "a q", "p"), node("Add", "p b", "q"), node("Add", "p q")], {}, "has a cycle"),
    "a tensor that is made twice": ([node("Add", "a b"), node("Mul", "a b")], {}, "two tensors of the name"),
    "an output that no node makes": ([node("Add", "a b", "other")], {}, 'its output "y"'),
    "another domain": ([node("Add", "a b", domain="com.example")], {}, 'domain "com.example"'),
    "a condition": ([node("Equal", "a b", "c"), node("Where", "c a b")], {}, "not linear"),
    "widths that do not fit": ([node("MatMul", "a w")], {"w": [[1.0], [2.0]]}, "shape"),
    "inputs that are missing": ([node("MatMul", "a")], {}, "do not fit its operator"),
    "a rounded result": (
        [node("MatMul", "a w", "r"), node("Cast", "r", to=TensorProto.INT64)],
        {"w": [[1.0]]},
        "rounds",
    ),
    "a transform": (
        [node("LinearRegressor", "a", domain="ai.onnx.ml", coefficients=[1.0], post_transform="LOGISTIC")],
        {},
        '"LOGISTIC".*NONE',
    ),
    "a constant per row": ([node("Add", "a rows")], {"rows": [[1.0], [2.0]]}, "a value for each row"),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_that_is_not_linear_is_refused_by_the_name_of_its_node(name: str) -> None:
    nodes, constants, message = GRAPHS[name]
    with pytest.raises(InvalidInput, match=message):
        READER.read(graph_of(nodes, constants), {})


def test_estimators_that_are_not_linear_are_refused_by_the_names_of_their_nodes() -> None:
    x = np.random.default_rng(0).normal(size=(20, 2))
    types = [("X", FloatTensorType([None, 2]))]
    normalised = make_pipeline(Normalizer(), LinearRegression()).fit(x, x[:, 0])
    classifier = LogisticRegression().fit(x, x[:, 0] > 0)
    for estimator, operator in ((normalised, "Normalizer"), (classifier, "LinearClassifier")):
        content = to_onnx(estimator, initial_types=types).SerializeToString()
        with pytest.raises(InvalidInput, match=f"node {operator}"):
            READER.read(content, {"features": "a,b"})


def test_a_column_with_the_name_of_a_product_is_refused_with_the_remedy() -> None:
    x = np.random.default_rng(0).normal(size=(20, 3))
    products = make_pipeline(PolynomialFeatures(interaction_only=True), LinearRegression()).fit(x, x[:, 0])
    content = to_onnx(products, initial_types=[("X", FloatTensorType([None, 3]))]).SerializeToString()
    for reader, file, options in (
        (READER, content, {"features": "a,b,a:b"}),
        (JsonImport(), json.dumps(TWICE).encode(), {}),
    ):
        with pytest.raises(InvalidInput) as caught:
            reader.read(file, options)
        assert any('"a:b" is given twice' in detail.message for detail in caught.value.details)
        assert any("Rename the column" in detail.message for detail in caught.value.details)


def test_an_input_without_names_asks_for_them() -> None:
    x = np.random.default_rng(0).normal(size=(20, 3))
    graph = to_onnx(LinearRegression().fit(x, x[:, 0]), initial_types=[("X", FloatTensorType([None, 3]))])
    with pytest.raises(InvalidInput, match=r"3 columns without names.*features=") as caught:
        READER.read(graph.SerializeToString(), {})
    assert caught.value.details[0].parameter == "features"
    with pytest.raises(InvalidInput, match="3 columns, and `features` has 2 names"):
        READER.read(graph.SerializeToString(), {"features": "a,b"})
    with pytest.raises(InvalidInput, match="1 targets, and `targets` has 2 names"):
        READER.read(graph.SerializeToString(), {"features": "a,b,c", "targets": "y,z"})


def simple() -> onnx.ModelProto:
    return onnx.load_from_string(graph_of([node("MatMul", "a w")], {"w": [[1.0]]}))


def with_external_data() -> bytes:
    model = simple()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return bytes(model.SerializeToString())


def with_huge_shape() -> bytes:
    model = simple()
    model.graph.initializer[0].dims[:] = [1 << 40, 1 << 20]
    return bytes(model.SerializeToString())


def with_missing_values() -> bytes:
    model = simple()
    model.graph.initializer[0].dims[:] = [1, 1000]
    return bytes(model.SerializeToString())


def with_subgraph() -> bytes:
    model = simple()
    branch = helper.make_graph([], "branch", [], [])
    model.graph.node.append(helper.make_node("If", ["a"], ["z"], then_branch=branch, else_branch=branch))
    return bytes(model.SerializeToString())


def with_function() -> bytes:
    model = simple()
    model.functions.append(helper.make_function("d", "f", ["a"], ["b"], [], [helper.make_opsetid("", 17)]))
    return bytes(model.SerializeToString())


def with_sparse_initializer() -> bytes:
    model = simple()
    values = numpy_helper.from_array(np.array([1.0]), "s")
    indices = numpy_helper.from_array(np.array([0]), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [100]))
    return bytes(model.SerializeToString())


def with_text_that_is_not_utf8() -> bytes:
    model = simple()
    encoder = node("OneHotEncoder", "a", "h", domain="ai.onnx.ml", cats_strings=[b"\xff\xfe"])
    model.graph.node.insert(0, encoder)
    return bytes(model.SerializeToString())


def with_wide_input() -> bytes:
    model = simple()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1 << 40
    return bytes(model.SerializeToString())


def of_growing_products() -> bytes:
    """A sum of 30 columns that is squared seven times."""
    inputs = [helper.make_tensor_value_info(f"c{i}", TensorProto.DOUBLE, ["N", 1]) for i in range(30)]
    total = [node("Add", "c0 c1", "t1"), *(node("Add", f"t{i} c{i + 1}", f"t{i + 1}") for i in range(1, 29))]
    squares = [node("Mul", f"t{i} t{i}", f"t{i + 1}") for i in range(29, 36)]
    return graph_of([*total, *squares, node("Identity", "t36")], {}, inputs)


def of_many_columns() -> bytes:
    """Each of 60 nodes doubles the number of columns."""
    nodes = [
        node("Concat", f"{'a' if i == 0 else f'c{i}'} {'a' if i == 0 else f'c{i}'}", f"c{i + 1}", axis=1)
        for i in range(60)
    ]
    return graph_of([*nodes, node("Identity", "c60")], {})


def of_sums_that_double() -> bytes:
    """Each of 11 nodes adds 2,000 sums to the same sums in another order, which doubles their products."""
    inputs = [helper.make_tensor_value_info("c0", TensorProto.DOUBLE, ["N", 2000])]
    constants = {f"r{i}": np.roll(np.arange(2000), 1 << i) for i in range(11)}
    nodes = [
        each
        for i in range(11)
        for each in (node("Gather", f"c{i} r{i}", f"g{i}", axis=1), node("Add", f"c{i} g{i}", f"c{i + 1}"))
    ]
    return graph_of([*nodes, node("Identity", "c11")], constants, inputs)


def of_long_constants(node_of: Callable[[int], onnx.NodeProto]) -> bytes:
    """Several nodes, each of which makes more of a constant."""
    return graph_of([*(node_of(i) for i in range(8)), node("Identity", "a")], {"k": np.ones(1_500_000, np.float32)})


def of_codes_of_codes() -> bytes:
    """Each of four nodes gives 1,000 codes to the codes of 2,000 columns."""
    inputs = [helper.make_tensor_value_info("c0", TensorProto.STRING, ["N", 2000])]
    words = [f"k{i}" for i in range(1000)]
    options: dict[str, Any] = {"domain": "ai.onnx.ml", "keys_strings": words, "values_strings": words}
    return graph_of([node("LabelEncoder", f"c{i}", f"c{i + 1}", **options) for i in range(4)], {}, inputs)


NAMES_OF_2000 = {"features": ",".join(f"f{i}" for i in range(2000))}
HOSTILE = {
    "sums that double": (of_sums_that_double, "more than 500,000 products"),
    "codes of codes": (of_codes_of_codes, "more than 500,000 products"),
    "constants that are joined": (
        lambda: of_long_constants(lambda i: node("Concat", " ".join(["k"] * 4000), f"k{i}", axis=0)),
        "more than 2,000,000 numbers",
    ),
    "constants that are copied": (
        lambda: of_long_constants(lambda i: node("Cast", "k", f"k{i}", to=TensorProto.DOUBLE)),
        "more numbers than a linear model needs",
    ),
    "an attribute of another type": (
        lambda: graph_of([node("LinearRegressor", "a", domain="ai.onnx.ml", coefficients=[1.0], post_transform=1)]),
        "do not fit its operator",
    ),
    "constants in another file": (with_external_data, "in another file"),
    "a shape of 2^60 numbers": (with_huge_shape, "too large"),
    "fewer values than the shape": (with_missing_values, "do not fit its shape"),
    "a graph in a node": (with_subgraph, "subgraphs"),
    "functions": (with_function, "functions"),
    "sparse initializers": (with_sparse_initializer, "sparse initializers"),
    "text that is not UTF-8": (with_text_that_is_not_utf8, "not UTF-8"),
    "an input of 2^40 columns": (with_wide_input, "columns"),
    "products that double": (of_growing_products, "not supported"),
    "columns that double": (of_many_columns, "more than"),
    "a truncated file": (lambda: simple().SerializeToString()[:-5], "damaged"),
    "no bytes": (lambda: b"", "no graph"),
    "text": (lambda: b"not an ONNX file", "damaged"),
    "a million empty nodes": (
        lambda: b"\x08\x08\x3a\x80\x89\x7a" + b"\x0a\x00" * 1_000_000,
        "more than 200,000 fields",
    ),
    "levels without number": (lambda: b"\x08\x08" + b"\x32\x00" * 300_000, "more than 200,000 fields"),
    "a length beyond the end": (lambda: b"\x08\x08\x3a\xff\xff\xff\xff\x0f", "damaged"),
    "messages within messages": (lambda: nested(60), "damaged|graph"),
}


def nested(depth: int) -> bytes:
    """Types of sequences within each other, as the type of an input."""
    content = b""
    for _ in range(depth):
        content = b"\x22" + bytes([len(content)]) + content if len(content) < 120 else content
        content = b"\x0a" + bytes([len(content)]) + content if len(content) < 120 else content
    value = b"\x12" + bytes([len(content)]) + content
    graph = b"\x5a" + bytes([len(value) % 128]) + value
    return b"\x08\x08\x3a" + bytes([len(graph) % 128]) + graph


WIDE = ("sums that double", "codes of codes")  # graphs whose columns have no names


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_little_memory(name: str) -> None:
    make, message = HOSTILE[name]
    content = make()
    before = getrusage(RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidInput, match=message):
        READER.read(content, {"targets": "y", **(NAMES_OF_2000 if name in WIDE else {})})
    assert getrusage(RUSAGE_SELF).ru_maxrss - before < 150 << 10  # kB


FILES = [
    OnnxExport().write(version_of("indicators of gaps"), {}),
    OnnxExport().write(version_of("terms"), {}),
    graph_of(*LINEAR["shapes"]),
]


@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=8),
    st.integers(0, 40),
)
@settings(max_examples=100, deadline=None)
def test_changed_bytes_give_a_model_or_a_refusal(content: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    changed = bytearray(content)
    for place, value in changes:
        changed[place % len(changed)] = value
    with suppress(InvalidInput):
        READER.read(bytes(changed[: len(changed) - cut]), {})


def test_only_a_message_with_a_graph_is_taken_for_onnx() -> None:
    assert READER.matches(FILES[0])
    assert not any(
        READER.matches(content) for content in (b"", b"{}", b"<PMML>", b"\x08\x08", FILES[0][:-1], b"\x10" * 50)
    )
