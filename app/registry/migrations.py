"""Convert files of older formats to the newest.

Format 2 replaced squares by roots and recorded the loss of precision. Format 3 gave tensors and fields their names.
Format 4 added the schema of the table, which older cards lack: their columns are numbers.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from app.registry.model_card import ModelCard
from app.registry.tensors import Tensors
from app.regression.solvers import solver_from_record
from app.regression.sufficient_statistics import PRECISION_UNKNOWN

_FORMAT_OF_NAMES = 3

# A tensor that files of the first commits lack, although they have the number of format 1.
SINCE_FORMAT_1 = "statistics.count"

_TENSORS = {
    "weights": "coef",
    "residual_sums": "residual_norms",
    "variances": "unscaled_errors",
    "statistics.count": "statistics.effective_rows",
    "folds.count": "folds.effective_rows",
}
_FIELDS = {"no_intervals": "inference_unavailable", "better": "beats_current"}
_OPTIONS = {"held_out": "validation_fraction"}


def decode_card(text: str, schema: int) -> ModelCard:
    """Return the card with this text in a file of this format."""
    if schema >= _FORMAT_OF_NAMES:
        return msgspec.json.decode(text, type=ModelCard, dec_hook=solver_from_record)
    fields = _renamed(msgspec.json.decode(text, type=dict[str, Any]), _FIELDS)
    fields["solver"] = _renamed(fields["solver"], _OPTIONS)
    return msgspec.convert(fields, type=ModelCard, str_keys=True, dec_hook=solver_from_record)


def rename_tensors(tensors: Tensors, schema: int) -> Tensors:
    """Return the tensors with the names of format 3, and the values that they have in their file."""
    if schema >= _FORMAT_OF_NAMES:
        return tensors
    absent = {"statistics.log_weights": np.zeros(1), "statistics.operations": np.zeros(1)} if schema == 1 else {}
    return absent | _renamed(tensors, _TENSORS)


def convert_format_1(
    card: ModelCard, tensors: Tensors, read_parent: Callable[[int], ModelCard | None]
) -> tuple[ModelCard, Tensors]:
    """Return the card and renamed tensors of a file of format 1 with the values that format 3 has.

    Format 1 did not record the loss of precision, so inference is withheld if rows were ever taken out. `read_parent`
    returns the card of another version, or None if it cannot be read.
    """
    tensors = dict(tensors)
    for name in {"residual_norms", "unscaled_errors"} & tensors.keys():
        tensors[name] = np.sqrt(tensors[name])
    rows, weight = tensors["statistics.effective_rows"], tensors["statistics.factor"][0, 0] ** 2
    is_unweighted = np.isclose(weight, rows, rtol=1e-9)
    tensors["statistics.log_weights"] = np.where(is_unweighted, 0.0, np.nan)  # not recorded
    card = replace(card, discounted=bool(rows[0] != card.rows), untracked=_has_forgotten(card, read_parent))
    if card.untracked:
        tensors["residual_norms"] = np.full_like(tensors["residual_norms"], np.nan)
        tensors.pop("unscaled_errors", None)
        card = replace(card, inference_unavailable=PRECISION_UNKNOWN, metrics=_without_values(card.metrics))
    return card, tensors


def _has_forgotten(card: ModelCard, read_parent: Callable[[int], ModelCard | None]) -> bool:
    """Return True if rows may have been taken out on the way to this version. A missing parent may have."""
    seen = {card.version}
    while card.mode == "update":
        if card.parent is None or card.parent in seen:
            return True
        seen.add(card.parent)
        parent = read_parent(card.parent)
        if parent is None:
            return True
        card = parent
    return card.mode == "forget"


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}


def _without_values(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: _without_values(value) if isinstance(value, dict) else None for name, value in metrics.items()}
