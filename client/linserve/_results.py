"""Types that the methods of the client return: typed dictionaries for the service's JSON, and a few small classes."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypedDict, TypeVar

RowT = TypeVar("RowT")


class Array(Protocol):
    """An array of NumPy or of a similar package."""

    def __array__(self, *args: Any, **kwargs: Any) -> Any: ...
    def tolist(self) -> Any: ...


class Extrapolation(TypedDict):
    leverage: float | None
    outside: list[str]
    flag: bool


class Predictions(list[RowT], Generic[RowT]):
    """The predictions for rows: a list with a list, or a dictionary by target, for each row.

    A row in which a value is missing has None for each target. The attributes have the rest of the response.
    """

    def __init__(self, predictions: Iterable[RowT] = (), **fields: Any) -> None:
        super().__init__(predictions)
        self.model: str = fields.pop("model", "")
        self.version: int = fields.pop("version", 0)
        self.intervals: list[Any] | None = fields.pop("intervals", None)
        """For each row, [lower, upper] for each target; as in the predictions, by target or in a list."""
        self.confidence_intervals: list[Any] | None = fields.pop("confidence_intervals", None)
        """The same for the expected value."""
        self.baseline: Any = fields.pop("baseline", None)
        """The prediction for the mean of the training rows."""
        self.contributions: list[Any] | None = fields.pop("contributions", None)
        """For each row, target and feature. With the baseline, they sum to the prediction."""
        self.extrapolation: list[Extrapolation | None] | None = fields.pop("extrapolation", None)
        self.recorded: bool | None = fields.pop("recorded", None)
        self.unavailable: dict[str, str] = fields.pop("unavailable", None) or {}
        """Requested results that are not available, with the reasons."""


@dataclass(frozen=True)
class TablePrediction:
    """The facts about predictions that are in a file."""

    model: str
    version: int
    missing_rows: int  # rows without a prediction


@dataclass(frozen=True)
class Exported:
    """A version in another format. `content` is empty if it was written to a file."""

    content: bytes
    file_name: str
    media_type: str
    not_carried: tuple[str, ...]  # a sentence for each part that the format cannot carry

    @property
    def text(self) -> str:
        return self.content.decode()

    def write(self, path: str | Path) -> Path:
        """Write the content to the path, or under its own name into the folder. Return the path of the file."""
        target = Path(path)
        target = target / self.file_name if target.is_dir() else target
        target.write_bytes(self.content)
        return target


class ModelSummary(TypedDict):
    """A model in the list of all models."""

    model: str
    current: int | None
    note: str | None
    features: list[str]
    targets: list[str]
    versions: list[int]


class Progress(TypedDict):
    phase: str
    rows: int
    epoch: int | None
    epochs: int | None
    loss: float | None
    fragments: int | None
    fragments_total: int | None
    learning_rate: float | None
    largest_learning_rate: float | None
