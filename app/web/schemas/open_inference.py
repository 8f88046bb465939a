"""Requests and responses of the Open Inference Protocol."""

from typing import Any, Literal

from pydantic import ConfigDict, Field

from app.data.columns.encoder import Unknown
from app.data.tensors import DATATYPES
from app.prediction.query import Missing, PredictionOptions
from app.web.schemas.openapi_schema import Schema


class TensorParameters(Schema):
    """Unknown parameters are ignored."""

    binary_data_size: int | None = Field(None, ge=0)
    """Length of the tensor's values in bytes, if they follow the JSON of the body."""
    shared_memory_region: Any = Field(None, exclude=True)


class InputTensor(Schema):
    """The values of all features or of one."""

    model_config = ConfigDict(strict=True)

    name: str = Field(examples=["input"])
    """Name of a feature. A tensor of all features may have any name."""
    shape: list[int] = Field(examples=[[2, 3]])
    """`[n, p]` with the p features of the model in its order; `[n, 1]` or `[n]` for one feature."""
    datatype: str = Field(examples=["FP64"], json_schema_extra={"enum": list(DATATYPES)})
    """BYTES are texts: levels of a category, and dates."""
    parameters: TensorParameters | None = None
    data: list[Any] | None = Field(None, examples=[[73, 67, 43, 91, 88, 64]])
    """The values in row-major order, as a flat list, or as lists nested like `shape`."""


class OutputParameters(Schema):
    """Unknown parameters are ignored."""

    binary_data: bool | None = None
    """Return the values after the JSON of the response."""


class RequestedOutput(Schema):
    name: str = Field(examples=["predict"])
    parameters: OutputParameters | None = None


class InferenceParameters(Schema):
    """Options. Unknown parameters are ignored."""

    binary_data_output: bool = False
    """Return the values of all outputs after the JSON of the response, unless `binary_data` of an output is false."""
    interval: float | None = Field(None, gt=0, lt=1)
    """Level of the prediction intervals to add: outputs whose names end in `_lower` and `_upper`."""
    confidence: float | None = Field(None, gt=0, lt=1)
    """Level of the confidence intervals of the expected value to add: outputs whose names end in `_mean_lower` and
    `_mean_upper`."""
    explain: bool = False
    """Add the contribution of each column of the model, in outputs whose names end in `_contributions`, and the
    prediction for the mean of the training rows, in those that end in `_baseline`. They sum to the prediction."""
    missing: Missing = "refuse"
    """`null`: a row with a missing value has results of NaN, which are null in JSON."""
    unknown: Unknown = "refuse"
    """Handling of a level that the model does not know, as in `POST /predict`."""

    def options(self) -> PredictionOptions:
        return PredictionOptions(
            self.interval, self.confidence, self.explain, missing=self.missing, unknown=self.unknown
        )


class InferenceRequest(Schema):
    """Tensors to predict for. Unknown members are ignored."""

    model_config = ConfigDict(strict=True)

    id: str | None = None
    """Returned as the `id` of the response."""
    parameters: InferenceParameters | None = None
    inputs: list[InputTensor] = Field(min_length=1)
    outputs: list[RequestedOutput] | None = None
    """The results to return, in this order. By default all, in the form of the inputs: `predict` `[n, k]` for one
    tensor of all features, or a tensor `[n, 1]` with the name of each target. Those of the other form can be requested
    too."""


class OutputTensor(Schema):
    name: str = Field(examples=["predict"])
    shape: list[int] = Field(examples=[[2, 2]])
    datatype: Literal["FP64"] = "FP64"
    parameters: TensorParameters | None = None
    data: list[float | None] | None = None
    """The values in row-major order. null if there is no result."""


class ResponseParameters(Schema):
    unavailable: str | None = None
    """Why results are null, or not what their names say."""


class InferenceResponse(Schema):
    """Predictions. With binary outputs, the header `Inference-Header-Content-Length` has the length of this JSON."""

    model_name: str = Field(examples=["crop-yield"])
    model_version: str = Field(examples=["1"])
    id: str | None = None
    parameters: ResponseParameters | None = None
    outputs: list[OutputTensor]


class InferenceError(Schema):
    error: str = Field(examples=['Tensor "input": Expected the shape [n, 3], found [2, 4].'])


class ServerMetadata(Schema):
    name: str = Field(examples=["linserve"])
    version: str
    extensions: list[str] = Field(examples=[["binary_tensor_data"]])


class Liveness(Schema):
    live: bool


class Readiness(Schema):
    ready: bool
    live: bool


class ModelReadiness(Schema):
    name: str = Field(examples=["crop-yield"])
    ready: bool


class TensorMetadata(Schema):
    name: str = Field(examples=["temp"])
    datatype: str = Field(examples=["FP64"])
    shape: list[int] = Field(examples=[[-1, 1]])


class ModelMetadata(Schema):
    name: str = Field(examples=["crop-yield"])
    versions: list[str] = Field(examples=[["1"]])
    platform: str
    inputs: list[TensorMetadata]
    """A tensor for each feature, in the model's order. One tensor `[-1, p]` of all features is also accepted."""
    outputs: list[TensorMetadata]
    """A tensor for each target."""


class IndexRequest(Schema):
    """Unknown members are ignored."""

    model_config = ConfigDict(strict=True)

    ready: bool = False
    """List only models that are ready."""


class IndexEntry(Schema):
    name: str = Field(examples=["crop-yield"])
    version: str = Field(examples=["1"])
    state: Literal["READY"] = "READY"
    reason: str = Field("", examples=[""])


EXAMPLES: dict[str, Any] = {
    "One tensor of all features": {
        "inputs": [{"name": "input", "shape": [2, 3], "datatype": "FP64", "data": [73, 67, 43, 91, 88, 64]}]
    },
    "A tensor for each feature, with intervals": {
        "id": "42",
        "parameters": {"interval": 0.95},
        "inputs": [
            {"name": "temp", "shape": [2], "datatype": "INT32", "data": [73, 91]},
            {"name": "rainfall", "shape": [2], "datatype": "INT32", "data": [67, 88]},
            {"name": "humidity", "shape": [2], "datatype": "INT32", "data": [43, 64]},
        ],
        "outputs": [{"name": "apples"}, {"name": "apples_lower"}, {"name": "apples_upper"}],
    },
}
