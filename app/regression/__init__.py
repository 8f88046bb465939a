"""Linear regression: statistics, solvers and `LinearRegressor`. Independent of HTTP, jobs and files."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # it loads scipy, which the modules that serve predictions do without
    from app.regression.estimator import LinearRegressor

__all__ = ["LinearRegressor"]


def __getattr__(name: str) -> Any:
    if name == "LinearRegressor":
        from app.regression.estimator import LinearRegressor

        return LinearRegressor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
