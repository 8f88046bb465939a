"""Reads a linear model from an ONNX graph, by following its nodes with symbols in place of values.

skl2onnx writes pipelines as many nodes: scaled, encoded and joined columns. They are linear if each step is.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from app.data.columns.options import Kind
from app.data.names import MAX_NAMES, listed, shown
from app.errors import InvalidInput
from app.exchange.assembly import Feature, assembled, warnings_of_digits
from app.exchange.expression import Atom, Sum
from app.exchange.hints import FEATURES, decoded_hints
from app.exchange.imported import ImportedModel
from app.exchange.json_model import ColumnRecord
from app.exchange.names_given import names_given
from app.exchange.onnx.conditions import CONDITIONS
from app.exchange.onnx.file import Node, array_of, is_onnx, nodes_of, parsed
from app.exchange.onnx.ml_operators import ML_OPERATORS
from app.exchange.onnx.operators import BOOL, DOUBLE, FLOAT, INT32, INT64, OPERATORS, STRING, Draft, Operator, State
from app.exchange.onnx.shapes import ML_SHAPE_OPERATORS, SHAPE_OPERATORS, joined
from app.exchange.onnx.values import Linear, Symbols, Text, Value, linear_of, symbols_of
from app.exchange.onnx.writer import TARGETS
from app.exchange.pieces import PIECES_BYTES, limited_pieces

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, ValueInfoProto

_OPERATORS: Mapping[str, Mapping[str, Operator]] = {
    "": {**OPERATORS, **CONDITIONS, **SHAPE_OPERATORS},
    "ai.onnx.ml": {**ML_OPERATORS, **ML_SHAPE_OPERATORS},
}
_SUPPORTED = ", ".join(sorted(name for table in _OPERATORS.values() for name in table))
_MAX_ELEMENTS = 4_000_000  # Most elements of all tensors that the nodes of a graph make.
_ELEMENT_BYTES = 64 << 20  # Memory of _MAX_ELEMENTS numbers and two copies of the largest tensor, in bytes.
_SINGLE = (
    "The file has 32-bit coefficients, which were rounded. Predictions differ from those of the program that wrote the "
    "file by up to about 1e-6 of their size."
)


class OnnxImport:
    name = "onnx"
    media_type = "application/x-onnx"
    extensions: tuple[str, ...] = (".onnx",)

    def matches(self, content: bytes) -> bool:
        return is_onnx(content)

    def working_bytes(self, content: bytes) -> int:
        """Return an estimate of the bytes for the messages, the constants, and the results of the nodes."""
        return 8 * len(content) + _ELEMENT_BYTES + PIECES_BYTES

    def read(self, content: bytes, options: Mapping[str, str]) -> ImportedModel:
        """Return the model in a file. `features` and `targets` in the options name columns without names."""
        model = parsed(content)
        with limited_pieces():
            return _read(model, options)


def _read(model: "ModelProto", options: Mapping[str, str]) -> ImportedModel:
    hints = _hints(model)
    state = State()
    values: dict[str, Any] = {"": None}
    for tensor in model.graph.initializer:
        values[tensor.name] = array_of(tensor)
    _add_inputs(state, values, model.graph, names_given(options, "features"), hints)
    _follow(state, values, nodes_of(model.graph))
    result = _result(model.graph, values)
    return _imported(model, state, result, _targets(model, result, names_given(options, "targets")), hints)


def _hints(model: "ModelProto") -> dict[str, ColumnRecord]:
    return decoded_hints(next((entry.value for entry in model.metadata_props if entry.key == FEATURES), "[]"))


def _add_inputs(
    state: State, values: dict[str, Any], graph: "GraphProto", names: Sequence[str], hints: Mapping[str, ColumnRecord]
) -> None:
    """Add a symbol for each column of each input."""
    inputs = [each for each in graph.input if each.name not in values]
    shapes = [_inner(each, names, single=len(inputs) == 1) for each in inputs]
    width = sum(map(prod, shapes))
    if not 1 <= width <= MAX_NAMES:
        raise InvalidInput(f"The inputs of the graph have {width:,} columns. Expected 1 to {MAX_NAMES:,}.")
    if names and len(names) != width:
        raise InvalidInput.of_parameter(
            "features", f"The inputs of the graph have {width} columns, and `features` has {len(names)} names."
        )
    for each, inner in zip(inputs, shapes, strict=True):
        count, first = prod(inner), len(state.drafts)
        if not names and count > 1:
            raise InvalidInput.of_parameter(
                "features",
                f"The input {shown(each.name)} has {count} columns without names. Name them in order, as in "
                "`features=temp,rainfall,humidity`.",
            )
        kind = each.type.tensor_type.elem_type
        for name in names[first : first + count] or [each.name]:
            hint = hints.get(name)
            state.drafts.append(Draft(name, kind, marks=frozenset(hint.na if hint else ())))
        if each.name in values:
            raise InvalidInput(f"The graph has two tensors of the name {shown(each.name)}.")
        values[each.name] = _symbols(kind, first, inner)


def _inner(value: "ValueInfoProto", names: Sequence[str], *, single: bool) -> tuple[int, ...]:
    """Return the shape of one row of an input."""
    tensor = value.type.tensor_type
    if tensor.elem_type not in (FLOAT, DOUBLE, INT32, INT64, BOOL, STRING):
        raise InvalidInput(
            f"The input {shown(value.name)} has an unsupported type. Supported: float, double, int32, int64, bool and "
            "string."
        )
    if not tensor.HasField("shape") or not tensor.shape.dim:
        raise InvalidInput(f"The input {shown(value.name)} has no shape. Expected [rows, columns].")
    inner = [dim.dim_value for dim in tensor.shape.dim][1:]
    if inner == [0] and single and names:
        inner = [len(names)]
    if any(length < 1 for length in inner) or len(inner) > 2:  # noqa: PLR2004 - [rows, 1, columns] at most
        raise InvalidInput(
            f"The input {shown(value.name)} has an unknown number of columns. Expected the shape [rows, columns]. "
            "Name the columns in `features`, or write the file with their number."
        )
    return tuple(inner)


def _symbols(kind: int, first: int, inner: tuple[int, ...]) -> Symbols:
    places = range(first, first + prod(inner))
    if kind == STRING:
        return symbols_of([Text(place) for place in places], inner)
    return symbols_of([Sum.of(Atom(place, "number")) for place in places], inner)


def _follow(state: State, values: dict[str, Any], nodes: Iterator[Node]) -> None:
    """Add the value of each node's outputs."""
    left = _MAX_ELEMENTS
    for node in nodes:
        operator = _OPERATORS[node.domain].get(node.operator)
        if operator is None:
            raise InvalidInput(
                f"The graph has a node {node.shown}, which is not linear or not supported. Supported: {_SUPPORTED}."
            )
        if missing := [name for name in node.inputs if name not in values]:
            raise InvalidInput(
                f"The node {node.shown} uses {shown(missing[0])} before any node makes it. The graph is not sorted, or "
                "has a cycle."
            )
        try:
            results = operator(state, node, [values[name] for name in node.inputs])
        except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError):
            raise InvalidInput(
                f"The node {node.shown} has inputs or attributes that do not fit its operator."
            ) from None
        outputs = results if isinstance(results, list) else [results]
        for name, value in zip(node.outputs, outputs, strict=False):
            if name in values:
                raise InvalidInput(f"The graph has two tensors of the name {shown(name)}.")
            values[name] = value
            left -= _size(value)
        if left < 0:
            raise InvalidInput("The graph makes more numbers than a linear model needs. Write it with fewer steps.")


def _size(value: Value) -> int:
    """Return the number of coefficients or elements of a value."""
    array = value.coefficients if isinstance(value, Linear) else value
    return array.size if isinstance(array, np.ndarray) else 1


def _result(graph: "GraphProto", values: Mapping[str, Any]) -> Linear:
    """Return the outputs of the graph as one map to all targets."""
    maps = []
    for output in graph.output:
        if output.name not in values:
            raise InvalidInput(f"The graph has no node that makes its output {shown(output.name)}.")
        found = linear_of(values[output.name])
        maps.append(found.reshaped(lambda places: places.reshape(-1)))
    result = joined(maps, 1)
    assert isinstance(result, Linear)
    return result


def _targets(model: "ModelProto", result: Linear, given: Sequence[str]) -> list[str]:
    """Return the names of the targets: those given, those of the metadata, or those of the outputs."""
    count = len(result.constant)
    if given:
        if len(given) != count:
            raise InvalidInput.of_parameter(
                "targets", f"The graph has {count} targets, and `targets` has {len(given)} names."
            )
        return list(given)
    for entry in model.metadata_props:
        if entry.key == TARGETS:
            try:
                names = msgspec.json.decode(entry.value, type=list[str])
            except msgspec.MsgspecError:
                names = []
            if len(names) == count:
                return names
    outputs = [output.name for output in model.graph.output]
    if len(outputs) == count:
        return outputs
    return [f"{outputs[0]}_{place}" for place in range(1, count + 1)]


def _imported(
    model: "ModelProto", state: State, result: Linear, targets: Sequence[str], hints: Mapping[str, ColumnRecord]
) -> ImportedModel:
    """Return the model of the features that the graph uses."""
    used = {atom.feature for column in result.columns for monomial in column.parts for atom, _ in monomial}
    used |= state.guarded | {place for place, draft in enumerate(state.drafts) if draft.levels}
    places = sorted(used)
    renumbered = {old: new for new, old in enumerate(places)}
    columns = [column.renumbered(renumbered) for column in result.columns]
    _check_kinds(state, result)
    features = [_feature(state.drafts[place], hints.get(state.drafts[place].name)) for place in places]
    portable = assembled(features, targets, columns, result.coefficients.reshape(len(columns), -1), result.constant)
    lost = warnings_of_digits(columns, result.coefficients)
    source = " ".join(part for part in ("ONNX", model.producer_name[:100], model.producer_version[:100]) if part)
    return ImportedModel(portable, source=source, warnings=(*_warnings(state, used), *lost))


def _check_kinds(state: State, result: Linear) -> None:
    """Raise InvalidInput if a feature is a number and a category at once."""
    numbers = {
        atom.feature
        for column in result.columns
        for monomial in column.parts
        for atom, _ in monomial
        if atom.kind in ("number", "filled")
    }
    for place in numbers:
        if state.drafts[place].levels:
            raise InvalidInput(
                f"The graph uses {shown(state.drafts[place].name)} both as a number and as a category. Give the "
                "feature twice, with two names."
            )


def _feature(draft: Draft, hint: ColumnRecord | None) -> Feature:
    if draft.levels:
        levels = tuple(level for level in draft.levels if level not in draft.na)
        return Feature(draft.name, "category", levels, tuple(draft.na), draft.fill, hint)
    kind: Kind = "boolean" if draft.type == BOOL else "number"
    if hint is not None and draft.type == DOUBLE and hint.kind in ("date", "boolean"):
        kind = hint.kind
    return Feature(draft.name, kind, (), tuple(draft.na), None, hint)


def _warnings(state: State, used: set[int]) -> Iterator[str]:
    if state.is_single:
        yield _SINGLE
    zeros = [draft.name for draft in state.drafts if draft.has_zeros and not draft.is_guarded]
    if zeros:
        yield (
            "In the file, unknown levels and missing values of these categories have no effect. Here they are errors, "
            f"unless a request has the option `unknown` or `missing`: {listed(zeros)}."
        )
    unused = [draft.name for place, draft in enumerate(state.drafts) if place not in used]
    if unused:
        yield f"The graph does not use these columns, so they are not features of the model: {listed(unused)}."
