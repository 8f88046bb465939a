"""An nn.Linear of PyTorch."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from linserve.convert._design import Array
from linserve.convert._names import feature_names, target_names
from linserve.errors import NotConvertible


def recognises(estimator: object) -> bool:
    return any(made.__module__ == "torch.nn.modules.module" for made in type(estimator).__mro__)


def convert(estimator: Any, features: Sequence[str] | None, targets: Sequence[str] | None) -> dict[str, Any]:
    """Return the JSON of an nn.Linear, or of an nn.Sequential with nothing else. Raises NotConvertible."""
    module = estimator
    while type(module).__name__ == "Sequential" and len(module) == 1:
        module = module[0]
    if type(module).__name__ != "Linear" or type(module).__module__ != "torch.nn.modules.linear":
        inner = [type(part).__name__ for part in module.children()]
        made_of = f", made of {', '.join(inner)}," if inner else ""
        raise NotConvertible(f"{type(module).__name__}{made_of} cannot be imported. Give an nn.Linear.")
    weight = _numbers(module.weight)
    intercept = np.zeros(len(weight)) if module.bias is None else _numbers(module.bias)
    return {
        "features": feature_names(features, None, weight.shape[1]),
        "targets": target_names(targets, len(weight)),
        "coefficients": weight.tolist(),
        "intercept": intercept.tolist(),
        "source": "PyTorch nn.Linear",
    }


def _numbers(parameter: Any) -> Array:
    return np.asarray(parameter.detach().cpu().double().numpy())
