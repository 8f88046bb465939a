"""One version as one immutable safetensors file, with a checksum over all that it says."""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from app.errors import ModelFileInvalid
from app.registry.model_card import SCHEMA, ModelCard
from app.regression.linear_model import LinearModel
from app.regression.sufficient_statistics import SufficientStatistics

# What the bytes of anybody's file may raise on their way through safetensors, numpy and msgspec.
_UNREADABLE = (
    SafetensorError,
    msgspec.MsgspecError,
    OSError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    MemoryError,
    RecursionError,
)


class _Schema(msgspec.Struct):
    schema: int


@dataclass(frozen=True, eq=False)
class Version:
    """A published model: the card and the model that predicts."""

    card: ModelCard
    model: LinearModel


def encode(card: ModelCard, model: LinearModel) -> bytes:
    """The file's bytes. The model's statistics go along: they carry intervals, updates and warnings."""
    statistics = model.statistics
    tensors: dict[str, NDArray[np.float64]] = {
        "weights": model.weights,
        "intercept": model.intercept,
        "residual_sums": model.residual_sums,
        "statistics.count": np.array([statistics.count]),
        "statistics.shift": statistics.shift,
        "statistics.scale": statistics.scale,
        "statistics.factor": statistics.factor,
        "statistics.minimum": statistics.minimum,
        "statistics.maximum": statistics.maximum,
    }
    if model.variances is not None:
        tensors["variances"] = model.variances
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    text = msgspec.json.encode(card).decode()
    return save(tensors, metadata={"card": text, "sha256": _checksum(text, tensors)})


def read(path: Path) -> Version:
    """Read and check a version's file.

    Raises FileNotFoundError; ModelFileInvalid where the file is truncated, altered or not one of ours.
    """
    with _opened(path) as file:
        metadata = file.metadata() or {}
        text = metadata.get("card", "")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        if metadata.get("sha256") != _checksum(text, tensors):
            raise ModelFileInvalid(f"{path.name} is altered or not a model of this service: its checksum is wrong.")
        card = _card(text, path.name)
        return Version(card, _model(card, tensors))


def read_card(path: Path) -> ModelCard:
    """The card alone, without loading or checking the tensors. Raises as `read` does."""
    with _opened(path) as file:
        return _card((file.metadata() or {}).get("card", ""), path.name)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file, of which whatever cannot be read is a ModelFileInvalid."""
    try:
        if not path.is_file() and path.exists():  # whoever opens a pipe waits for its other end
            raise ModelFileInvalid(f"{path.name} is no file.")
        with safe_open(path, framework="np") as file:
            yield file
    except FileNotFoundError:
        raise
    except _UNREADABLE:
        raise ModelFileInvalid(f"{path.name} is truncated, altered or not a model of this service.") from None


def _card(text: str, name: str) -> ModelCard:
    schema = msgspec.json.decode(text, type=_Schema).schema
    if schema != SCHEMA:
        raise ModelFileInvalid(f"{name} has schema version {schema!r}; this service reads {SCHEMA}.")
    return msgspec.json.decode(text, type=ModelCard)


def _model(card: ModelCard, tensors: dict[str, NDArray[np.float64]]) -> LinearModel:
    statistics = SufficientStatistics(
        features=len(card.terms or card.features),
        rows=card.rows,
        count=float(tensors["statistics.count"][0]),
        **{name: tensors[f"statistics.{name}"] for name in ("shift", "scale", "factor", "minimum", "maximum")},
    )
    return LinearModel(
        card.features,
        card.targets,
        tensors["weights"],
        tensors["intercept"],
        statistics,
        tensors["residual_sums"],
        tensors.get("variances"),
        terms=card.terms,
        has_intercept=getattr(card.solver, "fit_intercept", True),
        no_intervals=card.no_intervals,
    )


def _checksum(card: str, tensors: dict[str, NDArray[np.float64]]) -> str:
    digest = hashlib.sha256(card.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name} {tensor.dtype} {tensor.shape}\0".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()
