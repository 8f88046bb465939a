"""This service's own JSON format."""

from app.prediction.encoding import encode_result
from app.web.problems import problem_document
from app.web.routes import predict
from app.web.schemas.predict import PredictRequest


class LinserveFormat:
    router = predict.router
    schemas = (PredictRequest,)
    encode = staticmethod(encode_result)
    render_error = staticmethod(problem_document)
