"""Reads the bytes of an ONNX file within bounds, without opening any other file.

Parsing takes 100 times the memory of a file of empty messages, so their number is counted before.
"""

from collections.abc import Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.data.names import shown
from app.errors import InvalidInput

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

MAX_BYTES = 64 << 20  # Largest file, in bytes. 2,000 features and 2,000 targets take 32 MB.
MAX_VALUES = 4_100_000  # Most numbers or texts of one tensor.
_MAX_FIELDS = 200_000  # Most fields of all messages together. Each field becomes an object.
_MAX_PACKED = 1 << 20  # Most bytes of packed integers. Parsing and converting takes up to 24 times the memory.
_MAX_NODES = 10_000
_MAX_DEPTH = 12  # Deepest nesting of messages. The dimensions of an input's type are at depth 7.
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
_NOT_ONNX = "The file is not an ONNX model, or it is damaged."
_NOT_UTF8 = "The file has a text that is not UTF-8."
_GRAPH = 7  # number of a model's field `graph`
_VARINT, _BYTES = 0, 2  # wire types of protocol buffers
_WIDTHS = {1: 8, 5: 4}  # bytes of other wire types

# Messages within messages, by the number of their field. Other fields are numbers, texts or not read here.
_MESSAGES: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 8: "leaf", 14: "leaf", 26: "leaf"},
    "graph": {1: "node", 5: "tensor", 11: "value", 12: "value", 13: "value", 16: "leaf"},
    "node": {5: "attribute", 9: "leaf", 10: "leaf"},
    "attribute": {5: "tensor", 10: "tensor", 14: "type", 15: "type"},
    "tensor": {3: "leaf", 13: "leaf", 16: "leaf"},
    "value": {2: "type", 4: "leaf"},
    "type": {1: "tensor type", 4: "element", 5: "map", 8: "tensor type", 9: "element", 7: "leaf"},
    "element": {1: "type"},
    "map": {2: "type"},
    "tensor type": {2: "shape"},
    "shape": {1: "leaf"},
    "leaf": {},
}
_REFUSED = {
    ("model", 20): "training information",
    ("model", 25): "functions",
    ("graph", 14): "quantized tensors",
    ("graph", 15): "sparse initializers",
    ("attribute", 6): "subgraphs, as If, Loop and Scan have them",
    ("attribute", 11): "subgraphs, as If, Loop and Scan have them",
    ("attribute", 22): "sparse tensors",
    ("attribute", 23): "sparse tensors",
}
_PACKED: Mapping[str, tuple[int, ...]] = {"tensor": (1, 5, 7, 11), "attribute": (8,)}  # fields of packed integers


class Node(NamedTuple):
    """A step of the graph."""

    operator: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]  # numbers, bytes, lists of texts, or arrays

    @property
    def shown(self) -> str:
        """The operator and the name, for messages."""
        return f"{shown(self.operator)[1:-1]}" + (f" (named {shown(self.name)})" if self.name else "")


def parsed(content: bytes) -> "ModelProto":
    """Return the model in a file. Raises InvalidInput unless it is one graph within the limits."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # loaded for files of this format only
    from onnx import ModelProto  # loaded for files of this format only

    if len(content) > MAX_BYTES:
        raise InvalidInput(f"The file has {len(content):,} bytes. ONNX files of up to {MAX_BYTES:,} bytes are read.")
    _Fields().count(memoryview(content), "model")
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except (DecodeError, ValueError, RecursionError):
        raise InvalidInput(_NOT_ONNX) from None
    if not all(isinstance(text, str) for text in _texts(model)):
        raise InvalidInput(_NOT_UTF8)
    if not model.graph.output:
        raise InvalidInput(f"{_NOT_ONNX} It has no graph with an output.")
    if len(model.graph.node) > _MAX_NODES:
        raise InvalidInput(f"The graph has {len(model.graph.node):,} nodes. Up to {_MAX_NODES:,} are supported.")
    return model


def _texts(model: "ModelProto") -> Iterator[object]:
    """Yield the texts that are read, which are bytes if they are not UTF-8."""
    graph = model.graph
    yield from (model.producer_name, model.producer_version)
    for entry in model.metadata_props:
        yield from (entry.key, entry.value)
    for named in (*graph.initializer, *graph.input, *graph.output):
        yield named.name
    for node in graph.node:
        yield from (node.op_type, node.domain, node.name, *node.input, *node.output)
        for attribute in node.attribute:
            yield from (attribute.name, attribute.t.name)


def nodes_of(graph: "GraphProto") -> Iterator[Node]:
    """Yield the nodes in order. Raises InvalidInput for an operator of another domain."""
    for node in graph.node:
        domain = "" if node.domain == "ai.onnx" else node.domain
        found = Node(node.op_type, domain, node.name, tuple(node.input), tuple(node.output), {})
        if node.domain not in _DOMAINS:
            raise InvalidInput(
                f"The graph has a node {found.shown} of the domain {shown(node.domain)}. Operators of ai.onnx and "
                "ai.onnx.ml are supported."
            )
        yield found._replace(attributes=dict(_attributes(node)))


def _attributes(node: "NodeProto") -> Iterator[tuple[str, Any]]:
    from onnx import AttributeProto as Attribute  # loaded for files of this format only

    plain = {Attribute.FLOAT: "f", Attribute.INT: "i", Attribute.STRING: "s"}
    lists = {Attribute.FLOATS: ("floats", np.float64), Attribute.INTS: ("ints", np.int64)}
    for attribute in node.attribute:
        if attribute.type in plain:
            yield attribute.name, getattr(attribute, plain[attribute.type])
        elif attribute.type in lists:
            values, dtype = lists[attribute.type]
            yield attribute.name, np.fromiter(getattr(attribute, values), dtype)
        elif attribute.type == Attribute.STRINGS:
            yield attribute.name, [_text(value) for value in attribute.strings]
        elif attribute.type == Attribute.TENSOR:
            yield attribute.name, array_of(attribute.t)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidInput(_NOT_UTF8) from None


def array_of(tensor: "TensorProto") -> NDArray[Any]:
    """Return the values of a constant. Raises InvalidInput if they are in another file, or do not fit its shape."""
    from onnx import TensorProto, numpy_helper  # loaded for files of this format only

    if tensor.data_location != TensorProto.DEFAULT or tensor.external_data:
        raise InvalidInput(
            f"The constant {shown(tensor.name)} is in another file. Save the model with its constants inside."
        )
    known = {getattr(TensorProto, name) for name in ("FLOAT", "DOUBLE", "INT32", "INT64", "BOOL", "STRING")}
    if tensor.data_type not in known:
        raise InvalidInput(
            f"The constant {shown(tensor.name)} has an unsupported type. Supported: float, double, int32, int64, bool "
            "and string."
        )
    size = prod(tensor.dims) if all(length >= 0 for length in tensor.dims) else -1
    if not 0 <= size <= MAX_VALUES:
        raise InvalidInput(f"The constant {shown(tensor.name)} has a shape that is too large or negative.")
    try:
        array = np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, IndexError, OverflowError, UnicodeDecodeError):
        raise InvalidInput(f"The constant {shown(tensor.name)} is damaged: its values do not fit its shape.") from None
    return array


def is_onnx(content: bytes) -> bool:
    """Return True if the content is a message that begins with the version of the IR and has a graph."""
    if len(content) < 3 or content[0] != 0x08:  # noqa: PLR2004 - the key and the value of the version
        return False
    try:
        return _GRAPH in _Fields().count(memoryview(content), "leaf")
    except InvalidInput:
        return False


class _Fields:
    """Counts the fields of messages. Raises InvalidInput if there are too many, or if the bytes are not messages."""

    def __init__(self) -> None:
        self._left = _MAX_FIELDS
        self._packed_left = _MAX_PACKED

    def count(self, message: memoryview, name: str, depth: int = 0) -> set[int]:
        """Count the fields of a message of this kind and of those in it. Return the numbers of its own fields."""
        found: set[int] = set()
        place = 0
        if depth > _MAX_DEPTH:
            raise InvalidInput(_NOT_ONNX)
        while place < len(message):
            self._left -= 1
            if self._left < 0:
                raise InvalidInput(f"The file has more than {_MAX_FIELDS:,} fields. A linear model has fewer.")
            key, place = _varint(message, place)
            number, wire = key >> 3, key & 7
            found.add(number)
            if wire == _BYTES:
                length, place = _varint(message, place)
                self._count_part(message[place : place + length], length, name, number, depth)
                place += length
            elif wire == _VARINT:
                _, place = _varint(message, place)
            elif wire in _WIDTHS:
                place += _WIDTHS[wire]
            else:
                raise InvalidInput(_NOT_ONNX)
        if place > len(message):
            raise InvalidInput(_NOT_ONNX)
        return found

    def _count_part(self, part: memoryview, length: int, name: str, number: int, depth: int) -> None:
        """Count the fields of a part of a message, if it is a message."""
        if len(part) < length:
            raise InvalidInput(_NOT_ONNX)
        if refused := _REFUSED.get((name, number)):
            raise InvalidInput(f"The file has {refused}. Only a single graph of operators is supported.")
        if inner := _MESSAGES[name].get(number):
            self.count(part, inner, depth + 1)
        elif number in _PACKED.get(name, ()):
            self._packed_left -= length
            if self._packed_left < 0:
                raise InvalidInput(
                    f"The file has more than {_MAX_PACKED:,} bytes of integers. A linear model has fewer."
                )


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """Return an integer and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            break
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the highest bit is set if more bytes follow
            return value, place
    raise InvalidInput(_NOT_ONNX)
