"""This service's own JSON format."""

from app.web.problems import problem_document
from app.web.routes import predict
from app.web.schemas.predict import PredictRequest


class LinserveFormat:
    name = "linserve"
    router = predict.router
    schemas = (PredictRequest,)
    calls = None
    render_error = staticmethod(problem_document)
