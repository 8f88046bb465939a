"""Names of features and targets for estimators that do not know them."""

from collections.abc import Sequence

from linserve.errors import NotConvertible


def feature_names(given: Sequence[str] | None, known: Sequence[str] | None, count: int) -> list[str]:
    """Return the names of `count` features: those given, otherwise those known. Raises NotConvertible."""
    names = given if given is not None else known
    if names is None:
        raise NotConvertible(
            f"The estimator was fitted without names of its {count} features. Name them: features=['…', …]."
        )
    if len(names) != count:
        raise NotConvertible(f"The estimator has {count} features, and `features` has {len(names)} names.")
    return [str(name) for name in names]


def target_names(given: Sequence[str] | None, count: int, known: Sequence[str] | None = None) -> list[str]:
    """Return the names of `count` targets: those given or known, otherwise y, or y1, y2 and so on."""
    names = given if given is not None else known
    if names is None:
        names = ["y"] if count == 1 else [f"y{number}" for number in range(1, count + 1)]
    if len(names) != count:
        raise NotConvertible(f"The estimator has {count} targets, and `targets` has {len(names)} names.")
    return [str(name) for name in names]
