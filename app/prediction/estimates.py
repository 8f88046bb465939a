"""Estimates of the memory and work of a prediction, made before it is computed.

They bound memory: a request reserves these bytes first, and is rejected if they are not free.
"""

from collections.abc import Sequence

from app.prediction.predictor import Workload
from app.prediction.query import PredictionQuery
from app.registry.version_file import Version
from app.regression.linear_model import LinearModel
from app.storage.memory_budget import LARGE_BODY

MAX_RESPONSE = 1 << 27  # Bytes of a JSON response, which is in memory until it is sent.
TABLE_BYTES = 1 << 25  # Bytes for predicting for a table, in addition to the batch that is read.

_JSON_NUMBER_BYTES = 20  # Approximate bytes of a number in JSON.
_NUMBER_BYTES = 8
_ENCODING_FACTOR = 4  # Bytes that a JSON response takes while it is made, per byte of its length.
_COLUMNS_FACTOR = 3  # Bytes that predicting for encoded rows takes, per byte of their columns.
_SHORT_TABLE_FACTOR = 160  # Bytes that predicting for a short table takes, per byte of its length.
_DESIGN_FACTOR = 9  # Bytes for decomposing a design with LAPACK's workspace, per byte of the design.


def workload(query: PredictionQuery, model: LinearModel) -> Workload:
    """Return the measures of a decoded query."""
    options = query.options
    return Workload(
        multiplies=len(query.rows) * model.coef.size,
        response_bytes=_response_bytes(query, model),
        slow_options=int(options.needs_design or options.explain),
    )


def _response_bytes(query: PredictionQuery, model: LinearModel) -> int:
    """Return the approximate length of a JSON response."""
    options, number = query.options, _JSON_NUMBER_BYTES
    columns, targets = _written(model.columns), _written(model.targets)
    named = query.are_objects
    row = number * len(model.targets) + named * targets
    bounds = 2 * number * len(model.targets) + named * targets
    row += bounds * ((options.interval is not None) + (options.confidence is not None))
    if options.explain:
        row += len(model.targets) * (number * len(model.columns) + named * columns) + named * targets
    if options.extrapolation:
        row += number + columns
    return row * len(query.rows)


def _written(names: Sequence[str]) -> int:
    return sum(len(name) + len('"":') for name in names)


def rows_bytes(query: PredictionQuery, work: Workload, version: Version) -> int:
    """Return the bytes that predicting for decoded rows takes, and making the JSON response."""
    design = inference_bytes(version.model) if query.options.needs_design else 0
    rows = min(len(query.rows), query.rows_at_once(version))
    columns = 0 if version.encoder.is_plain else _COLUMNS_FACTOR * _NUMBER_BYTES * rows * version.encoder.width
    return _ENCODING_FACTOR * work.response_bytes + design + columns


def table_bytes(length: int | None, model: LinearModel, *, needs_design: bool) -> int:
    """Return the bytes that predicting for a table takes, in addition to the batch that is read.

    `length` is that of the table in bytes, if it is in memory.
    """
    size = TABLE_BYTES if length is None else min(TABLE_BYTES, LARGE_BODY + _SHORT_TABLE_FACTOR * length)
    return size + (inference_bytes(model) if needs_design else 0)


def inference_bytes(model: LinearModel) -> int:
    """Return the bytes for decomposing a design, as the first interval of a version does."""
    return _DESIGN_FACTOR * _NUMBER_BYTES * len(model.columns) ** 2
