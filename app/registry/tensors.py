"""The tensors of a version's file, in one table for writing, checking and reading them."""

from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from app.registry.model_card import ModelCard
from app.regression.linear_model import LinearModel
from app.regression.sufficient_statistics import SufficientStatistics

Tensors: TypeAlias = dict[str, NDArray[np.float64]]

STATISTICS = "statistics."


class Tensor(NamedTuple):
    """A tensor of float64, named as the attribute of LinearModel that it holds."""

    name: str
    shape: str  # lengths in terms of p columns and k targets
    optional: bool = False
    finite: bool = False


TENSORS = (
    Tensor("coef", "k p", finite=True),
    Tensor("intercept", "k", finite=True),
    Tensor("residual_norms", "k"),
    Tensor("unscaled_errors", "1+p", optional=True),
    Tensor("centre_prediction", "k", optional=True),
    Tensor("statistics.effective_rows", "1", finite=True),
    Tensor("statistics.log_weights", "1"),
    Tensor("statistics.operations", "1", finite=True),
    Tensor("statistics.shift", "p+k"),
    Tensor("statistics.scale", "p+k"),
    Tensor("statistics.factor", "1+p+k 1+p+k"),
    Tensor("statistics.minimum", "p"),
    Tensor("statistics.maximum", "p"),
    Tensor("statistics.removed", "1+p+k 1+p+k", optional=True),
)


def shape_for(shape: str, card: ModelCard, **sizes: int) -> tuple[int, ...]:
    """Return a shape of the table in numbers. `sizes` has those of other letters."""
    sizes |= {"p": len(card.terms or card.features), "k": len(card.targets), "1": 1}
    return tuple(sum(sizes[term] for term in length.split("+")) for length in shape.split())


def model_tensors(model: LinearModel) -> Tensors:
    """Return the tensors of a model and its statistics."""
    values = {tensor.name: attrgetter(tensor.name)(model) for tensor in TENSORS}
    # A scalar becomes a tensor of one value.
    return {name: np.ascontiguousarray(value, dtype=np.float64) for name, value in values.items() if value is not None}


def tensor_faults(card: ModelCard, tensors: Mapping[str, NDArray[Any]]) -> Iterator[str]:
    """Yield what is wrong with the tensors of a model that has this card."""
    for name, dimensions, optional, finite in TENSORS:
        shape = shape_for(dimensions, card)
        if name not in tensors:
            if not optional or (name == "unscaled_errors" and card.inference_unavailable is None):
                yield f"{name} is missing"
        elif tensors[name].dtype != np.float64 or tensors[name].shape != shape:
            yield f"{name} is {tensors[name].dtype} {tensors[name].shape} and not float64 {shape}"
        elif finite and not np.isfinite(tensors[name]).all():
            yield f"{name} is not finite"


def model_of(card: ModelCard, tensors: Tensors) -> LinearModel:
    """Return the model with this card and these tensors, in which `tensor_faults` found no fault."""
    values: dict[str, Any] = {tensor.name: tensors.get(tensor.name) for tensor in TENSORS}
    for name in ("statistics.effective_rows", "statistics.log_weights", "statistics.operations"):
        values[name] = values[name].item()
    of_statistics = {
        name.removeprefix(STATISTICS): values.pop(name) for name in list(values) if name.startswith(STATISTICS)
    }
    statistics = SufficientStatistics(
        features=len(card.terms or card.features),
        rows=card.rows,
        untracked=card.untracked,
        weight_kind=card.weight_kind,
        discounted=card.discounted,
        **of_statistics | {"operations": int(of_statistics["operations"])},
    )
    return LinearModel(
        features=card.features,
        targets=card.targets,
        statistics=statistics,
        terms=card.terms,
        has_intercept=getattr(card.solver, "fit_intercept", True),
        inference_unavailable=card.inference_unavailable,
        **values,
    )
