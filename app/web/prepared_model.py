"""A version that is prepared once for the fast path of one wire format."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, ClassVar, TypeAlias

import numpy as np

from app.data.json_encoder import OrdinaryEncoder
from app.data.predict_decoder import Rows, to_array
from app.monitoring.taps import Tap
from app.prediction.predictor import MAX_INLINE_MULTIPLIES
from app.registry.version_file import Version
from app.regression.linear_model import MAX_PYTHON_MULTIPLIES
from app.regression.sufficient_statistics import Array
from app.web.middleware import REQUEST_ID
from app.web.protocols.inference import BINARY
from app.web.version_headers import MIN_VERSION, VERSION

Predictions: TypeAlias = list[list[float]] | Array
Decoded: TypeAlias = tuple[Rows, Any]  # Rows, and what `encode` needs in addition.
Decode: TypeAlias = Callable[[bytes], Decoded]
# A body, and the length of the JSON at its beginning if other bytes follow it, otherwise 0.
Encoded: TypeAlias = tuple[bytes, int]


class PreparedModel(ABC):
    """A version, prepared for the bodies of one wire format."""

    route: ClassVar[str]  # Path of the route that answers other requests, with `{model}` for the default model.
    needs_type: ClassVar[bool]  # True if an eligible request has a Content-Type.
    has_binary: ClassVar[bool] = False  # True if values may follow the JSON of a body.
    # Values that an eligible request may have in these headers.
    headers: ClassVar[Mapping[bytes, AbstractSet[bytes]]] = {b"content-encoding": set(), MIN_VERSION.encode(): set()}

    def __init__(self, version: Version, tap: Tap) -> None:
        model, encoder = version.model, version.encoder
        self.version = version
        self._note = tap.note
        self.max_rows = MAX_INLINE_MULTIPLIES // model.coef.size
        self._max_few = 0 if model.terms else MAX_PYTHON_MULTIPLIES // model.coef.size  # Rows.
        self._encoder = None if encoder.is_plain else OrdinaryEncoder(encoder)
        self.before_id = self._before_id("application/json")
        self.before_id_binary = self._before_id(BINARY)
        self.decode = self.decoder(version)

    @abstractmethod
    def decoder(self, version: Version) -> Decode | None:
        """Return the decoder of bodies; None if only the route can decode those of this version.

        The decoder raises an exception for a body that is not eligible.
        """

    @abstractmethod
    def encode(self, predictions: Predictions, form: Any) -> Encoded:
        """Return the body of the response. `form` is the second value of the decoder."""

    def decode_binary(self, body: bytes, json_bytes: int) -> Decoded:
        """Decode a body in which values follow `json_bytes` bytes of JSON, if the format has such bodies."""
        raise NotImplementedError

    def _before_id(self, media_type: str) -> bytes:
        """Return the headers between the length and the request id."""
        headers = f"content-type: {media_type}\r\n{VERSION}: {self.version.card.version}"
        return b"\r\n%b\r\n%b: " % (headers.encode(), REQUEST_ID)

    def predict(self, rows: Rows) -> Predictions:
        """Return predictions, (len(rows), k), and leave the encoded rows in the tap.

        Raises PredictionTooLarge, or LookupError, TypeError or ValueError for a value that only the route can read.
        """
        model, encoder = self.version.model, self._encoder
        predictions: Predictions
        if len(rows) <= self._max_few and not isinstance(rows, np.ndarray):
            values = rows if encoder is None else encoder.few(rows)
            predictions = model.predict_few(values)
            self._note(values, len(rows))
            return predictions
        if encoder is None or isinstance(rows, np.ndarray):
            x = to_array(rows, len(model.features))
        else:
            x = encoder.matrix(rows)
        predictions = model.predict(x)
        self._note(x, len(rows))
        return predictions
