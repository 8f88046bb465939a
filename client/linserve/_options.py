"""The options of requests, as typed keyword arguments, and how they are written in a query.

docs/reference/http.md describes each of them.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict

Names: TypeAlias = str | Sequence[str]
Promote: TypeAlias = Literal["always", "if_better", "never"]

MAX_QUERY = 4096  # Bytes of options that are sent in a query. The service accepts 8 KiB with the path.


class TextOptions(TypedDict, total=False):
    """How a file is divided into cells."""

    sep: str
    encoding: str
    header: Literal["names", "none"]
    skip: int
    sheet: str | int
    decimal: str
    thousands: str
    dates: Literal["dmy", "mdy", "ymd"]


class PredictionOptions(TextOptions, total=False):
    """The version that predicts, and additions to the predictions."""

    model: str | None
    version: int | None
    alias: str | None
    interval: float | None
    confidence: float | None
    explain: bool
    extrapolation: bool
    missing: Literal["refuse", "null"] | None
    unknown: Literal["refuse", "null", "reference"] | None
    keep: Names | None
    instance_weights: str | Sequence[float] | None
    prediction_id: str | Sequence[str] | None
    min_version: int | None
    sticky: str | None


class ColumnOptions(TypedDict, total=False):
    """Options of one column."""

    kind: Literal["number", "boolean", "date", "category"]
    decimal: str
    thousands: str
    na: Sequence[str]
    strip: Sequence[str]
    dates: Literal["dmy", "mdy", "ymd"]
    reference: str
    missing: Literal["drop", "refuse", "indicator", "fill"]
    fill: float | str


class ReadingOptions(TextOptions, total=False):
    """How the columns of training rows are read."""

    na: Names
    strip: Names
    categories: Names
    numbers: Names
    booleans: Names
    drop: Names
    reference: Mapping[str, str]
    missing: Literal["drop", "refuse", "indicator", "fill"]
    fill: Mapping[str, float | str]
    columns: Mapping[str, ColumnOptions]


class CommonTrainingOptions(ReadingOptions, total=False):
    """Options of trainings, updates and forgets."""

    weight: str
    weight_kind: Literal["precision", "frequency"]
    l2: float | Literal["auto"]
    fit_intercept: bool
    device: Literal["auto", "cpu", "cuda"]
    folds: int
    fold_seed: int
    groups: str


class EvaluationOptions(TextOptions, total=False):
    """The versions to evaluate, and options of the metrics."""

    versions: int | Sequence[int]
    by: str
    level: float
    weight: str
    missing: Literal["drop", "refuse"]
    unknown: Literal["drop", "refuse", "reference"]
    record: bool


class TrainingOptions(CommonTrainingOptions, total=False):
    """Options of a training on these rows alone."""

    schema: Literal["infer"]
    diagnostics: bool
    unseen: bool
    solver: Literal["exact", "gradient_descent"]
    epochs: int
    learning_rate: float
    batch_size: int
    shuffle: bool
    seed: int
    start: str | int | Mapping[str, Any]
    momentum: float
    weight_decay: float
    standardize: bool
    patience: int
    validation_fraction: float


# Options that are objects of their own in JSON.
_SOLVER = (
    "l2", "fit_intercept", "device", "epochs", "learning_rate", "batch_size", "shuffle", "seed", "start", "momentum",
    "weight_decay", "standardize", "patience", "validation_fraction",
)  # fmt: skip
_VALIDATION = ("folds", "fold_seed", "groups")
_LISTS = (
    "targets", "features", "terms", "keep", "versions", "na", "strip", "categories", "numbers", "booleans", "drop",
)  # fmt: skip


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are not None. Those that are lists may be one text."""
    return {
        name: [value] if name in _LISTS and isinstance(value, str | int) else value
        for name, value in options.items()
        if value is not None
    }


def in_query(options: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the options as parameters of a query, or None if they are too long or cannot be written there."""
    texts: dict[str, str] = {}
    for name, value in options.items():
        text = _text(name, value)
        if text is None:
            return None
        texts[name] = text
    length = sum(len(name) + 3 * len(text.encode()) for name, text in texts.items())
    return texts if length <= MAX_QUERY else None


def _text(name: str, value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    if name == "columns":
        return json.dumps(value)
    if isinstance(value, Mapping):
        if name == "start" or any(":" in key for key in value):
            return None
        return _joined([f"{key}:{item}" for key, item in value.items()])
    return _joined([str(item) for item in value])


def _joined(texts: Sequence[str]) -> str | None:
    """Return the texts separated by commas, with quotes around those that have one."""
    if any("\n" in text or "\r" in text for text in texts):
        return None
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(texts)
    return line.getvalue()


def in_json(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options as the JSON body of a training has them."""
    solver = {name: options[name] for name in _SOLVER if name in options}
    validation = {name: options[name] for name in _VALIDATION if name in options}
    rest = {name: value for name, value in options.items() if name not in (*solver, *validation, "solver")}
    if solver or "solver" in options:
        rest["solver"] = {"kind": options.get("solver", "exact"), **solver}
    if validation:
        rest["validation"] = validation
    return rest
