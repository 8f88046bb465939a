"""The Open Inference Protocol on the fast path: one tensor of all features, in JSON or in binary."""

from array import array
from math import isfinite
from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np
import orjson

from app.data.tensors import DTYPES
from app.monitoring.taps import Tap
from app.prediction.tensors import PREDICT
from app.registry.version_file import Version
from app.web.prepared_model import Decode, Decoded, Encoded, Predictions, PreparedModel


class _Size(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    binary_data_size: int


class _Tensor(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    shape: tuple[int, int]
    datatype: Literal["FP64", "FP32"]
    data: list[float] | None = None
    parameters: _Size | None = None


class _OutputForm(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    binary_data: bool | None = None


class _Output(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: Literal["predict"]
    parameters: _OutputForm | None = None


class _Parameters(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    binary_data_output: bool = False


class _Inference(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    inputs: tuple[_Tensor]
    id: str | None = None
    parameters: _Parameters | None = None
    outputs: Annotated[list[_Output], msgspec.Meta(max_length=1)] | None = None

    def has_binary_output(self) -> bool:
        form = self.outputs[0].parameters if self.outputs else None
        if form is not None and form.binary_data is not None:
            return form.binary_data
        return self.parameters is not None and self.parameters.binary_data_output


class _Form(NamedTuple):
    """The form of the response."""

    id: str | None
    is_binary: bool


class OpenInferenceFormat(PreparedModel):
    """One tensor of all features, without options. The route ignores Content-Type and Accept."""

    route = "/v2/models/{model}/infer"
    needs_type = False
    has_binary = True

    def __init__(self, version: Version, tap: Tap) -> None:
        super().__init__(version, tap)
        card, targets = version.card, version.model.targets
        output = {"name": PREDICT, "datatype": "FP64", "shape": []}
        document = {"model_name": card.model, "model_version": str(card.version), "outputs": [output]}
        self._beginning = orjson.dumps(document).removesuffix(b"]}]}")
        self._targets = len(targets)
        self._width = len(version.encoder.names)
        self._read = msgspec.json.Decoder(_Inference).decode

    def decoder(self, version: Version) -> Decode | None:
        # A column may also be the tensor of one feature, and a target may have the name of the output.
        is_ordinary = (
            version.encoder.is_plain and len(version.encoder.names) > 1 and PREDICT not in version.model.targets
        )
        return self._decode if is_ordinary else None

    def _decode(self, body: bytes) -> Decoded:
        request = self._read(body)
        (tensor,) = request.inputs
        (rows, width), data = tensor.shape, tensor.data
        if data is None or tensor.parameters is not None or width != self._width or len(data) != rows * width:
            raise ValueError("The shape does not fit.")
        form = _Form(request.id, request.has_binary_output())
        if tensor.datatype == "FP32":
            data = array("f", data).tolist()
        if rows == 1:
            return [data], form
        if rows <= self._max_few:
            return [data[start : start + width] for start in range(0, len(data), width)], form
        return np.array(data).reshape(rows, width), form

    def decode_binary(self, body: bytes, json_bytes: int) -> Decoded:
        request = self._read(body[:json_bytes])
        (tensor,) = request.inputs
        (rows, width), parameters, dtype = tensor.shape, tensor.parameters, DTYPES[tensor.datatype]
        size = len(body) - json_bytes
        is_whole = parameters is not None and parameters.binary_data_size == size == rows * width * dtype.itemsize
        if tensor.data is not None or width != self._width or not is_whole:
            raise ValueError("The shape or the size does not fit.")
        with np.errstate(over="ignore", invalid="ignore"):
            # The copy is aligned in memory, which numpy is faster with.
            values = np.frombuffer(body, dtype, offset=json_bytes).astype(np.float64).reshape(rows, width)
            if not isfinite(np.add.reduce(values, axis=None)):
                raise ValueError("A value is missing or infinite, or their sum is.")
        form = _Form(request.id, request.has_binary_output())
        return values.tolist() if rows <= self._max_few else values, form

    def encode(self, predictions: Predictions, form: _Form) -> Encoded:
        end = b"}" if form.id is None else b',"id":%b}' % orjson.dumps(form.id)
        beginning = b"%b%d,%d]" % (self._beginning, len(predictions), self._targets)
        if form.is_binary:
            values = np.asarray(predictions, "<f8").tobytes()
            json = b'%b,"parameters":{"binary_data_size":%d}}]%b' % (beginning, len(values), end)
            return json + values, len(json)
        if not isinstance(predictions, list):
            data = orjson.dumps(predictions.reshape(-1), None, orjson.OPT_SERIALIZE_NUMPY)
        elif len(predictions) == 1:
            data = orjson.dumps(predictions[0])
        else:
            data = orjson.dumps([value for row in predictions for value in row])
        return b'%b,"data":%b}]%b' % (beginning, data, end), 0
