"""The Python client of Linserve, a service that trains linear models and predicts with them.

The clients are imported when they are first used, because httpx and scikit-learn take long to load.
"""

import importlib
from typing import TYPE_CHECKING, Any

from linserve._version import VERSION
from linserve.errors import (
    Conflict,
    ConnectionFailed,
    Forbidden,
    InvalidInput,
    JobCancelled,
    JobFailed,
    LinserveError,
    NotConvertible,
    NotFound,
    QueueFull,
    ServiceError,
    Unauthenticated,
    Unavailable,
    UnreadableRows,
    WaitTimeout,
)

if TYPE_CHECKING:
    from linserve._async_client import AsyncClient
    from linserve._client import Client
    from linserve._jobs import AsyncJob, Job
    from linserve._results import Exported, ModelSummary, Predictions, Progress, TablePrediction
    from linserve._retries import Retries
    from linserve.regressor import LinserveRegressor

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "Client",
    "Conflict",
    "ConnectionFailed",
    "Exported",
    "Forbidden",
    "InvalidInput",
    "Job",
    "JobCancelled",
    "JobFailed",
    "LinserveError",
    "LinserveRegressor",
    "ModelSummary",
    "NotConvertible",
    "NotFound",
    "Predictions",
    "Progress",
    "QueueFull",
    "Retries",
    "ServiceError",
    "TablePrediction",
    "Unauthenticated",
    "Unavailable",
    "UnreadableRows",
    "WaitTimeout",
    "__version__",
]

__version__ = VERSION

_MODULES = {
    "AsyncClient": "_async_client",
    "AsyncJob": "_jobs",
    "Client": "_client",
    "Exported": "_results",
    "Job": "_jobs",
    "LinserveRegressor": "regressor",
    "ModelSummary": "_results",
    "Predictions": "_results",
    "Progress": "_results",
    "Retries": "_retries",
    "TablePrediction": "_results",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
