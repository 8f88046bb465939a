"""Turn fitted estimators of other packages into the JSON of a model, without loading these packages.

A kind of estimator is one file with `recognises` and `convert`, and an entry in CONVERTERS.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from linserve.convert import scikit_learn, statsmodels, torch
from linserve.errors import NotConvertible


class Converter(Protocol):
    def recognises(self, estimator: object) -> bool:
        """Return True if the estimator is of this package."""

    def convert(self, estimator: Any, features: Sequence[str] | None, targets: Sequence[str] | None) -> dict[str, Any]:
        """Return the JSON of the model. Raises NotConvertible."""


CONVERTERS: tuple[Converter, ...] = (scikit_learn, statsmodels, torch)


def convert(
    estimator: Any, features: Sequence[str] | None = None, targets: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return the JSON of a fitted estimator, which predicts what the estimator predicts.

    `features` and `targets` name the columns if the estimator does not know their names. Raises NotConvertible with the
    name of the part that Linserve cannot serve.
    """
    for converter in CONVERTERS:
        if converter.recognises(estimator):
            record = {"format": "linserve-model/1", **converter.convert(estimator, features, targets)}
            if targets is None:
                _check_targets(record)
            return record
    raise NotConvertible(
        f"{type(estimator).__name__} cannot be imported. Give a fitted linear regression of scikit-learn, a result of "
        "statsmodels' OLS or WLS, an nn.Linear, the file of a model, or the JSON of a model as a dictionary."
    )


def _check_targets(record: dict[str, Any]) -> None:
    """Raise NotConvertible if a feature has the default name of a target."""
    names = {feature if isinstance(feature, str) else feature["name"] for feature in record["features"]}
    if both := sorted(names.intersection(record["targets"])):
        raise NotConvertible(
            f"The feature {both[0]!r} has the default name of a target. Name the targets: targets=['…']."
        )
