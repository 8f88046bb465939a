"""This service's own JSON format."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from app.prediction.encoding import encode_result
from app.prediction.predictor import PredictionResult
from app.web.problems import problem_document
from app.web.routes import predict
from app.web.schemas.predict import PredictRequest


class LinserveFormat:
    router = predict.router
    schemas = (PredictRequest,)

    def encode(self, result: PredictionResult) -> bytes:
        return encode_result(result)

    def render_error(self, problem: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
        return problem_document(problem, headers)
