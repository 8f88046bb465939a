"""The wire formats of the fast paths. They write exactly the same bytes as the routes."""

import re
from typing import ClassVar

import orjson

from app.data.predict_decoder import RowsDecoder
from app.monitoring.taps import Tap
from app.prediction.encoding import encode_few, encode_predictions
from app.registry.version_file import Version
from app.web.fast_inference import OpenInferenceFormat
from app.web.prepared_model import Decode, Encoded, Predictions, PreparedModel
from app.web.protocols.instances import elements

_NOT_IN_FIELD_NAMES = re.compile(r'["\\]').search  # Characters that msgspec does not escape in names of fields.


class OwnFormat(PreparedModel):
    """This service's own format, without options."""

    route = "/predict"
    needs_type = True
    headers: ClassVar = {
        b"content-type": {b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"},
        b"accept": {b"*/*", b"application/json", b"application/json, text/plain, */*"},
        **PreparedModel.headers,
    }

    def __init__(self, version: Version, tap: Tap) -> None:
        super().__init__(version, tap)
        self._targets = version.model.targets
        self._beginning = orjson.dumps({"model": version.card.model, "version": version.card.version})[:-1]

    def decoder(self, version: Version) -> Decode | None:
        return _rows_decoder(version)

    def encode(self, predictions: Predictions, form: bool) -> Encoded:
        if isinstance(predictions, list):
            written = encode_few(predictions, self._targets, as_objects=form)
        else:
            written = encode_predictions(predictions, self._targets, as_objects=form)
        return b'%b,"predictions":%b}' % (self._beginning, written), 0


class KServeV1Format(PreparedModel):
    """`instances` of KServe v1, without parameters. The route ignores Content-Type and Accept."""

    route = "/v1/models/{model}:predict"
    needs_type = False

    def __init__(self, version: Version, tap: Tap) -> None:
        super().__init__(version, tap)
        self._has_one_target = len(version.model.targets) == 1

    def decoder(self, version: Version) -> Decode | None:
        return _rows_decoder(version)

    def encode(self, predictions: Predictions, form: object) -> Encoded:  # noqa: ARG002 - the same for objects
        if not isinstance(predictions, list):
            written = orjson.dumps(elements(predictions), None, orjson.OPT_SERIALIZE_NUMPY)
        elif self._has_one_target:
            written = orjson.dumps([row[0] for row in predictions])
        else:
            written = orjson.dumps(predictions)
        return b'{"predictions":%b}' % written, 0


def _rows_decoder(version: Version) -> Decode | None:
    names, types = version.encoder.names, [column.ordinary_type for column in version.encoder.columns]
    # Only the routes can decode features with names that msgspec does not accept.
    return None if any(map(_NOT_IN_FIELD_NAMES, names)) else RowsDecoder(names, types).decode


FAST_FORMATS: tuple[type[PreparedModel], ...] = (OwnFormat, KServeV1Format, OpenInferenceFormat)
