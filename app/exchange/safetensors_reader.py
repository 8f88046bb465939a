"""Read a PyTorch `state_dict` of one `nn.Linear` in the safetensors format.

The file names no columns, so the request does: `features=a,b&targets=y`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize

from app.data.columns.schema import TableSchema
from app.data.names import check_names, listed
from app.errors import InvalidInput
from app.exchange.imported import ImportedModel
from app.exchange.names_given import names_given
from app.exchange.portable import PortableModel
from app.regression.sufficient_statistics import Array

LENGTH_BYTES = 8  # Size of the field with the header's length.
MAX_HEADER_BYTES = 1 << 20  # Longest header. Parsing takes 20 times the memory. The header of one layer has 200 bytes.
MAX_TENSORS = 100  # Most tensors of a file. A state_dict of one layer has two.
WEIGHT, BIAS = "weight", "bias"
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_REMEDY = (
    "Save the state_dict of one nn.Linear: `safetensors.torch.save_file(linear.state_dict(), 'linear.safetensors')`."
)


class SafetensorsImport:
    """Reads state_dicts."""

    name = "safetensors"
    media_type = "application/vnd.safetensors"
    extensions = (".safetensors",)

    def matches(self, content: bytes) -> bool:
        return is_safetensors(content)

    def working_bytes(self, content: bytes) -> int:
        return 10 * len(content)  # A float16 takes 8 bytes more, and the tensors are copied.

    def read(self, content: bytes, options: Mapping[str, str]) -> ImportedModel:
        weight, bias = _tensors(content)
        targets, features = len(weight), weight.shape[1]
        names = {option: names_given(options, option) for option in ("features", "targets")}
        for option, found in (("features", features), ("targets", targets)):
            if len(names[option]) != found:
                message = (
                    f"The layer has {features} features and {targets} targets. Name them in their order, as in "
                    f"`?features=a,b&targets=y`; `{option}` has {len(names[option])}."
                )
                raise InvalidInput.of_parameter(option, message)
        check_names(names["features"], names["targets"])
        table = TableSchema.of_numbers(names["features"], names["targets"])
        return ImportedModel(PortableModel(table, weight, bias), source="PyTorch nn.Linear")


def is_safetensors(content: bytes) -> bool:
    """Return True if the content begins as a safetensors file does: with the length of its header, and the header."""
    length = int.from_bytes(content[:LENGTH_BYTES], "little")
    return 1 < length <= len(content) - LENGTH_BYTES and content[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{"


def _tensors(content: bytes) -> tuple[Array, Array]:
    """Return the weight (targets, features) and the bias (targets,). Raises InvalidInput."""
    if (length := int.from_bytes(content[:LENGTH_BYTES], "little")) > MAX_HEADER_BYTES:
        raise InvalidInput(
            f"The header of the file has {length:,} bytes. Up to {MAX_HEADER_BYTES:,} bytes are read. {_REMEDY}"
        )
    try:
        found: list[tuple[str, dict[str, Any]]] = deserialize(content)  # type: ignore[no-untyped-call]
    except (SafetensorError, ValueError, OverflowError, MemoryError):
        raise InvalidInput(f"The file is truncated, or not a safetensors file. {_REMEDY}") from None
    tensors = dict(found)
    prefixes = {name.removesuffix(WEIGHT) for name in tensors if name.rpartition(".")[2] == WEIGHT}
    if len(tensors) > MAX_TENSORS or len(prefixes) != 1:
        shown = listed(sorted(tensors))
        raise InvalidInput(f"Expected the tensors `weight` and `bias` of one layer, found: {shown}. {_REMEDY}")
    prefix = prefixes.pop()
    if others := sorted(tensors.keys() - {prefix + WEIGHT, prefix + BIAS}):
        raise InvalidInput(f"The file has other tensors than those of one nn.Linear: {listed(others)}. {_REMEDY}")
    shape = tensors[prefix + WEIGHT]["shape"]
    if len(shape) != 2 or 0 in shape:  # noqa: PLR2004 - targets and features
        raise InvalidInput(
            f"The weight has {len(shape)} dimension(s), or no numbers; expected targets x features. {_REMEDY}"
        )
    weight = _array(tensors[prefix + WEIGHT], "weight")
    if prefix + BIAS not in tensors:
        return weight, np.zeros(len(weight))
    shape = tensors[prefix + BIAS]["shape"]
    if shape != [len(weight)]:
        raise InvalidInput(f"The bias has the shape {shape[:10]}; expected [{len(weight)}]. {_REMEDY}")
    return weight, _array(tensors[prefix + BIAS], "bias")


def _array(tensor: Mapping[str, Any], name: str) -> Array:
    dtype, data = tensor["dtype"], bytes(tensor["data"])
    if dtype == "BF16":  # the upper half of a float32
        values = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    elif dtype in _TYPES:
        values = np.frombuffer(data, _TYPES[dtype])
    else:
        raise InvalidInput(f"The {name} has the type {dtype}; expected {', '.join(_TYPES)} or BF16. {_REMEDY}")
    return np.asarray(values.astype(np.float64).reshape(tensor["shape"]))
