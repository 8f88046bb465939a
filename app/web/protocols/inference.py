"""One inference request of the Open Inference Protocol: from its body to a query, and from results to a response."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import orjson
from starlette.requests import Request
from starlette.responses import Response

from app.data.names import did_you_mean, listed, shown, without_level
from app.data.tensors import DTYPES, Tensor, fault_of_tensor, from_binary, from_json
from app.errors import FieldError, InvalidInput, MalformedBody
from app.prediction.encoding import Recorded, unavailable
from app.prediction.predictor import PredictionResult
from app.prediction.query import PredictionOptions, PredictionQuery, intervals_unavailable
from app.prediction.tensors import is_by_feature, output_names, to_outputs, to_rows
from app.registry.version_file import Version
from app.web import bodies
from app.web.predict_json import BodySize, DecodedBody
from app.web.schemas.open_inference import InferenceParameters, InferenceRequest, InputTensor
from app.web.state import get_memory

HEADER_LENGTH = "inference-header-content-length"  # Header with the length of the JSON before binary tensors.
BINARY = "application/octet-stream"
POINTER = "/inputs"
MAX_DIGITS = 20  # Longest value of the header with the length, in digits.
_TEXT_PER_VALUE = 6  # Decoding time of one binary number, in bytes of JSON.
_TEXT_BYTES = 4  # Bytes of a Python string per byte of UTF-8, at most.
_MORE = " Set `interval`, `confidence` or `explain` in `parameters` to get more outputs."
_PLACE = re.compile(rf"{POINTER}/(\d+)(?:/(\d+))?")


class Inference:
    """Decodes the body of one request, and encodes its response."""

    def __init__(self, request: Request, body: bytes) -> None:
        """Raises MalformedBody if the length of the JSON is not valid."""
        self._json, self._binary = _split(request, body)
        self._has_length = HEADER_LENGTH in request.headers
        self._memory = get_memory(request)
        self._payload: InferenceRequest | None = None
        self._names: Sequence[str] = ()  # Names of the results.
        self._tensors: Sequence[Tensor] = ()
        self._columns: Sequence[str] | None = None  # Names of the features, if each has a tensor.

    def size(self) -> BodySize | None:
        """Return how much work and memory decoding takes; None for JSON without binary tensors."""
        if not self._binary:
            return None
        width = _smallest_value(self._json)
        values = len(self._binary) // width
        texts = len(self._binary) if width == 1 else 0
        memory = bodies.decoding_bytes(self._json) + bodies.VALUE_BYTES * values + _TEXT_BYTES * texts
        return BodySize(len(self._json) + _TEXT_PER_VALUE * values, memory)

    def decode(self, _: bytes, version: Version, max_rows: int) -> DecodedBody:
        """Return the query. Raises MalformedBody or InvalidInput."""
        payload = self._decoded()
        parameters = payload.parameters or InferenceParameters()
        self._tensors = tensors = list(_tensors(payload.inputs, self._binary, max_rows))
        by_feature = is_by_feature(tensors, version)
        self._columns = version.encoder.names if by_feature else None
        options = parameters.options()
        self._names = _requested(payload, version, options, by_target=by_feature)
        missing = options.missing == "null"
        if missing or not version.encoder.is_plain:
            self._memory.reserve(bodies.ROW_BYTES * tensors[0].shape[0])  # The rows may become lists.
        rows = to_rows(tensors, version, missing=missing)
        return DecodedBody(PredictionQuery(rows, options, pointer=POINTER))

    def encode(self, result: PredictionResult, _: Recorded | None = None) -> Response:
        """Return the response, with the results that were requested."""
        payload, arrays = self._decoded(), to_outputs(result)
        by_default = payload.parameters is not None and payload.parameters.binary_data_output
        asked = {output.name: output.parameters and output.parameters.binary_data for output in payload.outputs or ()}
        outputs, contents = [], []
        for name in self._names:
            values = np.ascontiguousarray(arrays[name], "<f8")
            output = {"name": name, "datatype": "FP64", "shape": values.shape}
            binary = asked.get(name)
            if by_default if binary is None else binary:
                outputs.append({**output, "parameters": {"binary_data_size": values.nbytes}})
                contents.append(values.tobytes())
            else:
                outputs.append({**output, "data": values.reshape(-1)})
        card = result.version.card
        document: dict[str, Any] = {"model_name": card.model, "model_version": str(card.version), "outputs": outputs}
        if payload.id is not None:
            document["id"] = payload.id
        if reasons := unavailable(result, place="row "):
            document["parameters"] = {"unavailable": " ".join(f"{name}: {why}" for name, why in reasons.items())}
        json = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
        if not contents:
            return Response(json, media_type=bodies.JSON)
        return Response(b"".join([json, *contents]), headers={HEADER_LENGTH: str(len(json))}, media_type=BINARY)

    def explained(self, error: InvalidInput) -> InvalidInput:
        """Return the error with the tensor and the index in place of the row of a query."""
        detail = next(iter(error.details), None) if self._tensors else None  # There may be no rows yet.
        place = detail and detail.pointer and _PLACE.fullmatch(detail.pointer)
        if not detail or not place:
            return error
        row, column = place[1], place[2]
        message = without_level(detail.message)
        if column is None:
            where = f"Row {row}"
        elif self._columns is not None:
            where = f"Tensor {shown(self._columns[int(column)])}, index {row}"
        else:
            where = f"Tensor {shown(self._tensors[0].name)}, index {row}, {column}"
        return InvalidInput(f"{where}: {message}", error.details)

    def _decoded(self) -> InferenceRequest:
        if self._payload is None:
            try:
                self._payload = bodies.decode(InferenceRequest, self._json)
            except MalformedBody:
                if not self._has_length and b'"binary_data_size"' in self._json:
                    raise _without_length() from None
                raise
        return self._payload


def _split(request: Request, body: bytes) -> tuple[bytes, memoryview]:
    """Return the JSON of a body, and the binary tensors that follow it. Raises MalformedBody."""
    given = request.headers.getlist(HEADER_LENGTH)
    if not given:
        return body, memoryview(b"")
    text = given[0].strip() if len(given) == 1 else ""
    length = int(text) if text.isdecimal() and len(text) <= MAX_DIGITS else 0
    if not 0 < length <= len(body):
        message = (
            "Inference-Header-Content-Length is not valid. Expected the length of the JSON at the beginning of the "
            f"body, which has {len(body)} byte(s)."
        )
        raise MalformedBody(message, [FieldError(message, parameter="Inference-Header-Content-Length")])
    return body[:length], memoryview(body)[length:]


def _smallest_value(json: bytes) -> int:
    """Return the length of the shortest value that a binary tensor may have, by the datatypes that the JSON names."""
    if b'"BYTES"' in json or b"\\" in json:  # An escape sequence may hide a name.
        return 1
    return min((dtype.itemsize for name, dtype in DTYPES.items() if b'"%b"' % name.encode() in json), default=1)


def _without_length() -> MalformedBody:
    message = (
        "An input has `binary_data_size`, but the header Inference-Header-Content-Length is missing. Send it with the "
        "length of the JSON."
    )
    return MalformedBody(message, [FieldError(message, parameter="Inference-Header-Content-Length")])


def _binary_size(tensor: InputTensor) -> int | None:
    return None if tensor.parameters is None else tensor.parameters.binary_data_size


def _tensors(inputs: Sequence[InputTensor], binary: memoryview, max_rows: int) -> Iterator[Tensor]:
    """Yield the tensors. Raises InvalidInput if one does not fit the bytes that are there."""
    start, seen = 0, set()
    for each in inputs:
        name, shape, size = each.name, each.shape, _binary_size(each)
        if name in seen:
            raise fault_of_tensor(name, "The name is given more than once. Send one tensor for each feature.")
        seen.add(name)
        if shape and shape[0] > max_rows:
            raise fault_of_tensor(name, f"At most {max_rows} rows fit into one request. Send them in several requests.")
        if each.data is not None and size is None:
            yield from_json(name, each.datatype, shape, each.data)
        elif size is None or each.data is not None:
            shared = each.parameters is not None and each.parameters.shared_memory_region is not None
            message = "Shared memory is not supported." if shared else "Expected either `data` or `binary_data_size`."
            raise fault_of_tensor(name, f"{message} Send the values in `data`, or after the JSON of the body.")
        elif size > len(binary) - start:
            message = f"`binary_data_size` is {size}, and the rest of the body has {len(binary) - start} byte(s)."
            raise fault_of_tensor(name, message)
        else:
            yield from_binary(name, each.datatype, shape, binary[start : start + size])
            start += size
    if start != len(binary):
        message = (
            f"{len(binary) - start} byte(s) follow the last tensor. `binary_data_size` of the inputs is {start} in all."
        )
        raise InvalidInput.at(POINTER, message)


def _requested(
    payload: InferenceRequest, version: Version, options: PredictionOptions, *, by_target: bool
) -> Sequence[str]:
    """Return the names of the results to return. Raises InvalidInput for one that does not exist or is ambiguous."""
    if refused := intervals_unavailable(version.model, options):
        raise InvalidInput.at("/parameters", refused)
    own, others = output_names(version.model, options, by_target=by_target)
    known = Counter([*own, *others])
    names = [output.name for output in payload.outputs or ()]
    for index, name in enumerate(names):
        if name not in known:
            more = "" if options.explain or options.needs_design else _MORE
            every = [*own, *others]
            message = f"There is no output {shown(name)}.{did_you_mean(name, every)} Outputs: {listed(every)}.{more}"
            raise InvalidInput.at(f"/outputs/{index}/name", message)
    if len(set(names)) < len(names):
        raise InvalidInput.at("/outputs", "An output is requested more than once. Request each once.")
    names = names or own
    if ambiguous := next((name for name in names if known[name] > 1), None):
        message = (
            f"Two outputs would have the name {shown(ambiguous)}, because a target has this name too. List the outputs "
            "that you need in `outputs`, without it, or omit `interval`, `confidence` and `explain`."
        )
        raise InvalidInput.at("/outputs", message)
    return names
