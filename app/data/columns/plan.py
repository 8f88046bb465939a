"""The first pass over a table: find the kind of each column, or apply the schema of a version.

The trainer reads the rows twice: here, and to fit. This pass ends after SAMPLE_BYTES if all columns are numbers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from app.data.batch import CellBatch, Columns
from app.data.columns.options import ReadingOptions
from app.data.columns.profile import TableProfile
from app.data.columns.schema import PLAIN, Dialect, TableSchema
from app.errors import InvalidInput

SAMPLE_BYTES = 1 << 20  # Bytes of cells from which the columns of numbers are guessed.

Mode: TypeAlias = Literal["replace", "update", "forget"]


@dataclass(frozen=True)
class Roles:
    """The columns of a file, and their use in a training."""

    names: tuple[str, ...]  # all columns of the file that may be used, in its order
    targets: tuple[str, ...]
    weight: str | None = None
    features: tuple[str, ...] | None = None  # None: all that are neither targets nor weight, nor left out
    index: frozenset[str] = frozenset()  # the index of a pandas frame


@dataclass(frozen=True)
class Inferred:
    """The schema with which a table is read, and the warnings that its columns gave rise to."""

    schema: TableSchema
    warnings: tuple[str, ...]
    profile: TableProfile  # of the rows that were read
    is_guess: bool = False  # True if only the first rows were read: all columns appear to be plain numbers


def plan_schema(
    read_cells: Callable[[Columns], Iterator[CellBatch]],
    roles: Roles,
    options: ReadingOptions,
    *,
    dialect: Dialect = PLAIN,
    first_row: int = 1,
    untyped: bool = False,
    current: TableSchema | None = None,
    mode: Mode = "replace",
    certain: bool = False,
    step: Callable[[], None] = lambda: None,
) -> Inferred:
    """Return the schema of a table: `current` applied to it in this `mode`, or if there is none, as its cells suggest.

    `first_row` is the number of the first row of data. `untyped` is the format's `has_untyped_text`. With `certain`, all
    rows are read even if all columns appear to be numbers. `step` is called regularly.

    Raises InvalidInput if a kind cannot be decided, or if the table does not fit `current`.
    """
    raise NotImplementedError


def contradicts(error: InvalidInput, inferred: Inferred) -> bool:
    """Return True if a fault of the rows shows that a guess was wrong. Then plan again, with `certain`."""
    raise NotImplementedError
