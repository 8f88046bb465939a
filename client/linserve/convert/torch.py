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
    _check_hooks(module)
    while type(module).__name__ == "Sequential" and len(module) == 1:
        module = module[0]
        _check_hooks(module)
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


def _check_hooks(module: Any) -> None:
    """Raise NotConvertible if functions change what goes into the module, what comes out or its weights."""
    if module._forward_hooks or module._forward_pre_hooks:  # noqa: SLF001 - PyTorch has no other way to find them
        raise NotConvertible(
            f"{type(module).__name__} cannot be imported with hooks, because they may change its weights or its "
            "result. If it has a weight norm or a spectral norm, remove that first."
        )


def _numbers(parameter: Any) -> Array:
    if parameter.is_complex() or parameter.is_meta:
        kind = "complex weights" if parameter.is_complex() else "weights on the device `meta`, which have no values"
        raise NotConvertible(f"Linear cannot be imported with {kind}.")
    return np.asarray(parameter.detach().cpu().double().numpy())
