"""Predictions of models without their statistics, for tests of imports."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.data.json_encoder import JsonEncoder
from app.exchange.portable import PortableModel
from app.regression.terms import expand, parse_terms


def predictions(portable: PortableModel, rows: Sequence[Any]) -> NDArray[np.float64]:
    """Return the predictions for JSON rows. A row with a missing value or an unknown level has NaN."""
    encoder = JsonEncoder(portable.table.features)
    codes = encoder.read(list(rows), "/instances", missing=True, unknown="null").codes
    columns = encoder.design(codes)
    if portable.terms:
        columns = expand(columns, factors(portable))
    predicted = portable.predict(columns)
    predicted[np.isnan(codes).any(axis=1)] = np.nan
    return predicted


def factors(portable: PortableModel) -> Any:
    """Return the factors of the columns, whose order in a name does not matter."""
    return parse_terms(portable.columns, portable.table.encoded_features)
