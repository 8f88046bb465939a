"""One pass over the cells of a table: what is found in each column."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from app.data.batch import CellBatch
from app.data.columns.schema import Column

MAX_LEVELS = 2_001  # Distinct texts of a column that are kept.


@dataclass
class ColumnProfile:
    """The cells of one column."""

    column: Column  # how its cells are read
    rows: int = 0
    gaps: int = 0  # if it has the kind of `column`
    levels: dict[str, int] = field(default_factory=dict)  # distinct texts and their rows, at most MAX_LEVELS
    minimum: float = float("nan")
    maximum: float = float("nan")
    mean: float = float("nan")


@dataclass
class TableProfile:
    """The cells of all columns."""

    columns: dict[str, ColumnProfile]
    rows: int = 0
    first_row: int = 1  # number of the first row of data


def profile_table(
    batches: Iterable[CellBatch],
    columns: Sequence[Column],
    *,
    untyped: bool,
    first_row: int = 1,
    step: Callable[[], None] = lambda: None,
) -> TableProfile:
    """Return what the cells of a table are. The options of `columns` say how they are read; the kinds are open."""
    raise NotImplementedError
