"""Writes a model as an ONNX graph: one input for each feature, and one output for all targets.

All numbers are doubles. `LinearRegressor` would answer in float32, so the graph uses `MatMul` and `Add`.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from app import __version__
from app.data.columns.schema import Column, TableSchema
from app.exchange.column_marks import fills_gaps, number_for_gaps, numeric_marks, text_marks
from app.exchange.hints import FEATURES, encoded_hints
from app.exchange.left_behind import left_behind
from app.exchange.portable import PortableModel
from app.registry.version_file import Version
from app.regression.sufficient_statistics import Array
from app.regression.terms import Factors, parse_terms

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

# Versions that runtimes of the end of 2022 have: onnx 1.12 and onnxruntime 1.13.
OPSET, ML_OPSET, IR_VERSION = 17, 3, 8
_ML = "ai.onnx.ml"
_NO_LEVEL = -1  # code of an unknown level, and of a gap that nothing replaces
TARGETS = "linserve.targets"  # name of the metadata


class OnnxExport:
    name = "onnx"
    media_type = "application/x-onnx"
    extension = ".onnx"
    options: Mapping[str, tuple[str, ...]] = MappingProxyType({})

    texts: Mapping[str, str] = MappingProxyType({})

    def not_carried(self, version: Version) -> tuple[str, ...]:
        """Return a sentence for each part of this version that the format cannot carry. The file repeats them."""
        return (*left_behind(version), *_not_carried(version.table))

    def write(self, version: Version, options: Mapping[str, str]) -> bytes:  # noqa: ARG002 - the format has none
        """Return the file."""
        content: bytes = _model_of(PortableModel.of(version), self.not_carried(version)).SerializeToString()
        return content


def _not_carried(table: TableSchema) -> Iterator[str]:
    kinds = {column.kind for column in table.features}
    if "category" in kinds:
        yield "An unknown level gives NaN."
    if "date" in kinds:
        yield "Dates are doubles: days since 1970-01-01 UTC."
    if any(column.kind == "boolean" and not fills_gaps(column) for column in table.features):
        yield "A boolean cannot be missing, because a tensor of booleans has no value for it."
    if any(column.kind == "category" and fills_gaps(column) for column in table.features):
        yield "A text of spaces is an unknown level and not a missing value."


class _Graph:
    """Nodes and constants under construction. Names of tensors never equal those of features."""

    def __init__(self, taken: Sequence[str]) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._taken = set(taken)

    def unique(self, base: str) -> str:
        name, number = base, 2
        while name in self._taken:
            name, number = f"{base}_{number}", number + 1
        self._taken.add(name)
        return name

    def constant(self, base: str, values: object, dtype: type = np.float64) -> str:
        from onnx import numpy_helper  # loaded for files of this format only

        name = self.unique(base)
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def add(self, operator: str, inputs: Sequence[str], base: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output, and return the output's name."""
        from onnx import helper  # loaded for files of this format only

        name = self.unique(base)
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, domain=domain, **attributes))
        return name


def _model_of(portable: PortableModel, not_carried: Sequence[str]) -> "ModelProto":
    from onnx import TensorProto, helper  # loaded for files of this format only

    features, targets = portable.table.features, portable.targets
    graph = _Graph([column.name for column in features])
    factors = parse_terms(portable.columns, portable.table.encoded_features) if portable.terms else None
    columns, faults = _columns(graph, portable.table, factors)
    if factors is not None:
        columns = _terms(graph, columns, factors)
    if portable.centre is not None:
        columns = graph.add("Sub", [columns, graph.constant("centre", portable.centre)], "centred")
    start = portable.intercept if portable.centre is None or portable.start is None else portable.start
    products = graph.add("MatMul", [columns, graph.constant("coefficients", portable.coef.T)], "products")
    output = graph.add("Add", [products, graph.constant("start", start)], "sums" if faults else "predictions")
    if faults:
        missing = faults[0]
        for other in faults[1:]:
            missing = graph.add("Or", [missing, other], "without_prediction")
        output = graph.add("Where", [missing, graph.constant("none", np.nan), output], "predictions")
    inputs = [
        helper.make_tensor_value_info(column.name, _type_of(column), ["N", 1], doc_string=_description(column))
        for column in features
    ]
    doc_string = "A column for each target, in this order: " + ", ".join(targets)
    outputs = [helper.make_tensor_value_info(output, TensorProto.DOUBLE, ["N", len(targets)], doc_string=doc_string)]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "linear_model", inputs, outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(_ML, ML_OPSET)],
        ir_version=IR_VERSION,
        producer_name="Linserve",
        producer_version=__version__,
        doc_string="\n".join(not_carried),
    )
    helper.set_model_props(model, _metadata(portable, not_carried))
    return model


def _metadata(portable: PortableModel, not_carried: Sequence[str]) -> dict[str, str]:
    return {
        **{f"linserve.{name}": value for name, value in portable.description.items()},
        FEATURES: encoded_hints(portable.table.features),
        TARGETS: msgspec.json.encode(portable.targets).decode(),
        "linserve.not_carried": "\n".join(not_carried),
    }


def _type_of(column: Column) -> int:
    from onnx import TensorProto  # loaded for files of this format only

    if column.kind == "category":
        return int(TensorProto.STRING)
    return int(TensorProto.BOOL if column.kind == "boolean" and not fills_gaps(column) else TensorProto.DOUBLE)


def _description(column: Column) -> str:
    """Return a sentence or two on the values of an input."""
    if column.kind == "category":
        gap = f'is read as "{column.fill}"' if column.missing == "fill" else "has a coefficient of its own"
        texts = ", ".join(f'"{text}"' for text in text_marks(column))
        return f"A level. A missing value ({texts}) {gap if fills_gaps(column) else 'gives NaN'}."
    if column.kind == "boolean" and not fills_gaps(column):
        return "A boolean."
    kinds = {"number": "A number.", "boolean": "1 or 0.", "date": "Days since 1970-01-01 UTC."}
    fill = number_for_gaps(column)
    return f"{kinds[column.kind]} NaN is a missing value, which " + (
        "gives NaN." if fill is None else f"is read as {fill!r}."
    )


def _columns(graph: _Graph, table: TableSchema, factors: Sequence[Factors] | None) -> tuple[str, list[str]]:
    """Return the tensor of the columns, (N, p), and masks, (N, 1), of rows whose NaN no column of the model has."""
    used = None if factors is None else {index for term in factors for index, _ in term}
    blocks: list[str] = []
    faults: list[str] = []
    end = 0
    for column in table.features:
        place = end
        end += len(column.encoded_names)
        if column.kind == "category":
            codes = _codes(graph, column)
            faults.append(graph.add("Less", [codes, graph.constant("zero", 0, np.int64)], "unknown"))
            if len(column.encoded_names):
                blocks.append(_indicators(graph, codes, len(column.encoded_names)))
            continue
        tensors = _numbers(graph, column)
        if used is not None and place not in used and not fills_gaps(column) and column.kind != "boolean":
            faults.append(graph.add("IsNaN", [tensors[0]], "gap"))
        blocks += tensors
    return (graph.add("Concat", blocks, "columns", axis=1) if len(blocks) > 1 else blocks[0]), faults


def _codes(graph: _Graph, column: Column) -> str:
    """Return the index of each row's level. A gap has the index of its fill, or one more than the last level."""
    gap = _NO_LEVEL
    if fills_gaps(column):
        gap = len(column.levels) if column.missing == "indicator" else column.levels.index(str(column.fill))
    codes = {level: index for index, level in enumerate(column.levels)} | dict.fromkeys(text_marks(column), gap)
    return graph.add(
        "LabelEncoder",
        [column.name],
        "codes",
        _ML,
        keys_strings=list(codes),
        values_int64s=list(codes.values()),
        default_int64=_NO_LEVEL,
    )


def _indicators(graph: _Graph, codes: str, width: int) -> str:
    from onnx import TensorProto  # loaded for files of this format only

    hot = graph.add("OneHotEncoder", [codes], "levels", _ML, cats_int64s=list(range(1, width + 1)), zeros=1)
    flat = graph.add("Reshape", [hot, graph.constant("shape", [-1, width], np.int64)], "flat")
    return graph.add("Cast", [flat], "indicators", to=TensorProto.DOUBLE)


def _numbers(graph: _Graph, column: Column) -> list[str]:
    """Return the column of a number, a boolean or a date, and that of its gaps if it has one."""
    from onnx import TensorProto  # loaded for files of this format only

    name = column.name
    if _type_of(column) == TensorProto.BOOL:
        return [graph.add("Cast", [name], "number", to=TensorProto.DOUBLE)]
    for mark in numeric_marks(column):
        is_mark = graph.add("Equal", [name, graph.constant("mark", mark)], "is_mark")
        name = graph.add("Where", [is_mark, graph.constant("none", np.nan), name], "without_mark")
    fill = number_for_gaps(column)
    if fill is None:
        return [name]
    gaps = graph.add("IsNaN", [name], "gaps")
    filled = graph.add("Where", [gaps, graph.constant("fill", fill), name], "filled")
    if column.missing == "fill":
        return [filled]
    return [filled, graph.add("Cast", [gaps], "is_missing", to=TensorProto.DOUBLE)]


def _terms(graph: _Graph, columns: str, terms: Sequence[Factors]) -> str:
    """Return the tensor of the terms, (N, q): the product of as many powers as the longest term has factors."""
    product = ""
    for place in range(max(map(len, terms))):
        # A term with fewer factors is multiplied by the power 0 of a column.
        factors = [term[place] if place < len(term) else (term[0][0], 0) for term in terms]
        indices: Array = np.array([index for index, _ in factors], np.int64)
        powers = [float(power) for _, power in factors]
        factor = graph.add("Gather", [columns, graph.constant("places", indices, np.int64)], "factors", axis=1)
        if set(powers) != {1.0}:
            factor = graph.add("Pow", [factor, graph.constant("powers", powers)], "powers_of_factors")
        product = factor if not product else graph.add("Mul", [product, factor], "terms")
    return product
