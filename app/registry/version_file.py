"""One version as one immutable safetensors file, with a checksum over all that it says."""

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from app.errors import ModelFileInvalid
from app.registry.model_card import SCHEMA, ModelCard
from app.registry.stored_folds import PREFIX, fold_faults, fold_tensors, folds_of
from app.regression.errors import InvalidTerms
from app.regression.linear_model import LinearModel
from app.regression.solvers import solver_from_record
from app.regression.sufficient_statistics import PRECISION_UNKNOWN, SufficientStatistics
from app.regression.terms import parse_terms

# The largest model, of 2,000 columns and 2,000 targets, takes 160 MB, another 128 MB for rows that were taken out, and
# its card. One with stored folds takes up to 64 MiB more.
MAX_FILE_BYTES = 384 << 20

# Neither through a symlink nor, of a pipe, until somebody opens its other end.
_PLAINLY = os.O_NOFOLLOW | os.O_NONBLOCK

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


# What to do about a file that cannot be read.
_REMEDY = "Restore it from a backup, train the model again, or promote another version."

# Fields that the files of the first commits lack, although they have the number of format 1.
_SINCE_FORMAT_1 = "statistics.count"


# Names that format 3 gave to tensors and to fields of the card.
_RENAMED_TENSORS = {
    "weights": "coef",
    "statistics.count": "statistics.effective_rows",
    "folds.count": "folds.effective_rows",
}
_RENAMED_FIELDS = {"no_intervals": "inference_unavailable", "better": "beats_current"}
_RENAMED_OPTIONS = {"held_out": "validation_fraction"}
_SCHEMA_OF_NAMES = 3


class _Schema(msgspec.Struct):
    schema: int


@dataclass(frozen=True, eq=False)
class Version:
    """A published model: the card and the model that predicts."""

    card: ModelCard
    model: LinearModel
    size: int = 0  # bytes of the file it was read from, without those of the folds

    @cached_property
    def ignored(self) -> frozenset[str]:
        """The columns that rows to predict for may have although they are not read: what it was trained on has them."""
        return frozenset((*self.card.targets, *self.card.unused_columns)).difference(self.card.features)


def encode(card: ModelCard, model: LinearModel, folds: Mapping[int, SufficientStatistics] | None = None) -> bytes:
    """The file's bytes. The model's statistics go along: they carry intervals, updates and warnings.

    The statistics of the folds of a cross-validation are stored if the card says so.
    """
    statistics = model.statistics
    tensors: dict[str, NDArray[np.float64]] = {
        "coef": model.coef,
        "intercept": model.intercept,
        "residual_norms": model.residual_norms,
        "statistics.effective_rows": np.array([statistics.effective_rows]),
        "statistics.log_weights": np.array([statistics.log_weights]),
        "statistics.operations": np.array([statistics.operations]),
        "statistics.shift": statistics.shift,
        "statistics.scale": statistics.scale,
        "statistics.factor": statistics.factor,
        "statistics.minimum": statistics.minimum,
        "statistics.maximum": statistics.maximum,
    }
    optional = {
        "unscaled_errors": model.unscaled_errors,
        "centre_prediction": model.centre_prediction,
        "statistics.removed": statistics.removed,
    }
    tensors |= {name: tensor for name, tensor in optional.items() if tensor is not None}
    if folds:
        tensors |= fold_tensors(folds)
    tensors = {name: np.ascontiguousarray(tensor, dtype=np.float64) for name, tensor in tensors.items()}
    text = msgspec.json.encode(card).decode()
    return save(tensors, metadata={"card": text, "sha256": _checksum(text, tensors)})


def read(path: Path) -> Version:
    """Read and check a version's file. Its folds are checked and not kept.

    Raises FileNotFoundError; ModelFileInvalid where the file is truncated, altered or not one of ours.
    """
    with _checked(path) as (card, tensors, size):
        of_folds = sum(tensors.pop(name).nbytes for name in list(tensors) if name.startswith(PREFIX))
        found = _migrated(card, tensors, path) if card.schema == 1 else (card, tensors)
        return Version(found[0], _model(*found), size - of_folds)


def read_folds(path: Path) -> dict[int, SufficientStatistics]:
    """Read the statistics of a version's folds by their numbers; none if it has none. Raises as `read` does."""
    with _checked(path) as (card, tensors, _):
        return folds_of(card, tensors) if card.validation is not None and card.validation.stored else {}


@contextlib.contextmanager
def _checked(path: Path) -> Iterator[tuple[ModelCard, dict[str, NDArray[np.float64]], int]]:
    """Yield the card, the tensors and the size of a file, whose checksum and shapes are right."""
    with open_file(path) as file, _tensors_of(file, path) as stored:
        metadata = stored.metadata() or {}
        text = metadata.get("card", "")
        schema = _known_schema(text, path)
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a dict
        if metadata.get("sha256") != _checksum(text, tensors):
            raise ModelFileInvalid(
                f"{_place(path)} is altered or not a model of this service: its checksum is wrong. {_REMEDY}"
            )
        if schema == 1 and _SINCE_FORMAT_1 not in tensors:
            raise ModelFileInvalid(
                f"{_place(path)} has an early form of format 1, without {_SINCE_FORMAT_1}, which is not read. {_REMEDY}"
            )
        card = _card(text, schema)
        if schema < _SCHEMA_OF_NAMES:
            tensors = _renamed(tensors, _RENAMED_TENSORS)
        if faults := "; ".join(_faults(card, tensors)):
            raise ModelFileInvalid(
                f"{_place(path)}, of format {schema}, is not a model that this service could have made: {faults}. "
                f"{_REMEDY}"
            )
        yield card, tensors, os.fstat(file.fileno()).st_size


def read_card(path: Path) -> ModelCard:
    """The card alone, without loading or checking the tensors. Raises as `read` does."""
    with open_file(path) as file, _tensors_of(file, path) as stored:
        text = (stored.metadata() or {}).get("card", "")
        return _card(text, _known_schema(text, path))


def _card(text: str, schema: int) -> ModelCard:
    """Return the card with this text in a file of this format."""
    if schema >= _SCHEMA_OF_NAMES:
        return msgspec.json.decode(text, type=ModelCard, dec_hook=solver_from_record)
    plain = _renamed(msgspec.json.decode(text, type=dict[str, Any]), _RENAMED_FIELDS)
    plain["solver"] = _renamed(plain["solver"], _RENAMED_OPTIONS)
    return msgspec.convert(plain, type=ModelCard, str_keys=True, dec_hook=solver_from_record)


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}


def open_file(path: Path) -> BinaryIO:
    """A version's file as it is, to read from; what is open stays whole, whatever becomes of its name.

    Raises FileNotFoundError; ModelFileInvalid where it is no plain file, closed to this user, or larger than any model.
    """
    try:
        file = open(path, "rb", 0, opener=lambda name, flags: os.open(name, flags | _PLAINLY))  # noqa: SIM115 - the caller closes it, and Path's has no opener
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ModelFileInvalid(f"{_place(path)} cannot be opened: {error.strerror}.") from None
    state = os.fstat(file.fileno())
    if stat.S_ISREG(state.st_mode) and state.st_size <= MAX_FILE_BYTES:
        return file
    file.close()
    fault = "is larger than any model can be" if stat.S_ISREG(state.st_mode) else "is no plain file"
    raise ModelFileInvalid(f"{_place(path)} {fault}. {_REMEDY}")


@contextlib.contextmanager
def _tensors_of(file: BinaryIO, path: Path) -> Iterator[Any]:
    """What safetensors sees in the file, of which whatever cannot be read is a ModelFileInvalid."""
    try:
        # It opens paths alone; this is one to what is open already. Mapped into memory, a file that somebody cuts off
        # meanwhile would end the process.
        with safe_open(f"/dev/fd/{file.fileno()}", framework="np", backend="pread") as stored:
            yield stored
    except _UNREADABLE:
        message = f"{_place(path)} is truncated, altered or not a model of this service. {_REMEDY}"
        raise ModelFileInvalid(message) from None


def _known_schema(text: str, path: Path) -> int:
    """Return the number of the format of a file with this card. Raises ModelFileInvalid if it is not read here."""
    schema = msgspec.json.decode(text, type=_Schema).schema
    if 1 <= schema <= SCHEMA:
        return schema
    found = f"{_place(path)} has format {schema}; this service reads formats 1 to {SCHEMA}."
    if schema > SCHEMA:
        found += " A newer service wrote it: install that one, or promote another version."
    raise ModelFileInvalid(found if schema > SCHEMA else f"{found} {_REMEDY}")


def _place(path: Path) -> str:
    """Return the file's path below the models folder. Messages state no more of it."""
    return f"{path.parent.name}/{path.name}"


def _migrated(
    card: ModelCard, tensors: dict[str, NDArray[np.float64]], path: Path
) -> tuple[ModelCard, dict[str, NDArray[np.float64]]]:
    """The card and tensors of a file of schema 1, as schema 2 has them.

    Schema 1 did not record the loss of precision, so inference is withheld if rows were ever taken out.
    """
    tensors = dict(tensors)
    tensors["residual_norms"] = np.sqrt(tensors.pop("residual_sums"))
    if "variances" in tensors:
        tensors["unscaled_errors"] = np.sqrt(tensors.pop("variances"))
    count, weight = tensors["statistics.effective_rows"], tensors["statistics.factor"][0, 0] ** 2
    unweighted = np.isclose(weight, count, rtol=1e-9)
    tensors["statistics.log_weights"] = np.where(unweighted, 0.0, np.nan)  # not recorded
    tensors["statistics.operations"] = np.zeros(1)
    card = replace(card, discounted=bool(count[0] != card.rows), untracked=_has_forgotten(card, path))
    if card.untracked:
        tensors["residual_norms"] = np.full_like(tensors["residual_norms"], np.nan)
        tensors.pop("unscaled_errors", None)
        card = replace(card, inference_unavailable=PRECISION_UNKNOWN, metrics=_without_values(card.metrics))
    return card, tensors


def _without_values(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: _without_values(value) if isinstance(value, dict) else None for name, value in metrics.items()}


def _has_forgotten(card: ModelCard, path: Path) -> bool:
    """Whether rows may have been taken out on the way to a version of schema 1. A parent that is gone may have."""
    seen = {card.version}
    while card.mode == "update":
        parent = card.parent
        if parent is None or parent in seen:
            return True
        seen.add(parent)
        try:
            card = read_card(path.with_name(f"{parent:06d}{path.suffix}"))
        except (FileNotFoundError, ModelFileInvalid):
            return True
    return card.mode == "forget"


def _faults(card: ModelCard, tensors: dict[str, NDArray[Any]]) -> Iterator[str]:
    """What is wrong with a card and tensors that belong together, and could be with those of another maker."""
    names = (*card.features, *card.targets)
    if not card.features or not card.targets or len(set(names)) < len(names):
        yield "its features and targets are none, or not distinct"
    try:
        parse_terms(card.terms, card.features)
    except InvalidTerms:
        yield "its terms cannot be made from its features"
    if card.rows < 1:
        yield f"it has {card.rows} rows"
    p, k = len(card.terms or card.features), len(card.targets)
    schema_1 = card.schema == 1
    errors = "variances" if schema_1 else "unscaled_errors"
    shapes: dict[str, tuple[int, ...]] = {
        "coef": (k, p),
        "intercept": (k,),
        "residual_sums" if schema_1 else "residual_norms": (k,),
        "statistics.effective_rows": (1,),
        "statistics.shift": (p + k,),
        "statistics.scale": (p + k,),
        "statistics.factor": (1 + p + k, 1 + p + k),
        "statistics.minimum": (p,),
        "statistics.maximum": (p,),
    }
    if card.inference_unavailable is None or errors in tensors:
        shapes[errors] = (1 + p,)
    if not schema_1:
        shapes |= {"statistics.log_weights": (1,), "statistics.operations": (1,)}
    optional = {
        "centre_prediction": (k,),
        "statistics.removed": (1 + p + k, 1 + p + k),
    }
    shapes |= {name: shape for name, shape in optional.items() if name in tensors}
    for name, shape in shapes.items():
        if name not in tensors:
            yield f"{name} is missing"
        elif tensors[name].dtype != np.float64 or tensors[name].shape != shape:
            yield f"{name} is {tensors[name].dtype} {tensors[name].shape} and not float64 {shape}"
        elif name in _FINITE and not np.isfinite(tensors[name]).all():
            yield f"{name} is not finite"
    yield from fold_faults(card, tensors)


_FINITE = ("coef", "intercept", "statistics.effective_rows", "statistics.operations")


def _model(card: ModelCard, tensors: dict[str, NDArray[np.float64]]) -> LinearModel:
    statistics = SufficientStatistics(
        features=len(card.terms or card.features),
        rows=card.rows,
        effective_rows=float(tensors["statistics.effective_rows"][0]),
        shift=tensors["statistics.shift"],
        scale=tensors["statistics.scale"],
        factor=tensors["statistics.factor"],
        minimum=tensors["statistics.minimum"],
        maximum=tensors["statistics.maximum"],
        removed=tensors.get("statistics.removed"),
        untracked=card.untracked,
        weight_kind=card.weight_kind,
        log_weights=float(tensors["statistics.log_weights"][0]),
        discounted=card.discounted,
        operations=int(tensors["statistics.operations"][0]),
    )
    return LinearModel(
        card.features,
        card.targets,
        tensors["coef"],
        tensors["intercept"],
        statistics,
        tensors["residual_norms"],
        tensors.get("unscaled_errors"),
        tensors.get("centre_prediction"),
        terms=card.terms,
        has_intercept=getattr(card.solver, "fit_intercept", True),
        inference_unavailable=card.inference_unavailable,
    )


def _checksum(card: str, tensors: dict[str, NDArray[np.float64]]) -> str:
    digest = hashlib.sha256(card.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name} {tensor.dtype} {tensor.shape}\0".encode())
        digest.update(tensor.reshape(-1).view(np.uint8).data)  # neither copied nor under the GIL
    return digest.hexdigest()
