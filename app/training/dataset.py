"""The rows of a job, as `fit_model` reads them."""

import os
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from app.data.batch import Columns, Source
from app.data.columns.gap_patterns import GapPatterns
from app.data.columns.schema import TableSchema
from app.data.columns.terms import encoded_terms, term_blocks
from app.data.formats.csv import CSV
from app.data.training_rows import TrainingRows
from app.regression.sufficient_statistics import WeightKind
from app.training.request import TrainingRequest


class RowsRead(Protocol):
    """What a card has about the rows of a job."""

    @property
    def complete(self) -> int:
        """Number of rows that were used."""

    @property
    def dropped(self) -> int:
        """Number of rows that were left out because a value was missing."""

    @property
    def gaps(self) -> GapPatterns:
        """The gaps of the rows that were left out."""

    @property
    def gaps_by_column(self) -> dict[str, int]: ...

    @property
    def unused(self) -> list[str]:
        """Columns of the rows that were not used."""


class JobRows(TrainingRows):
    """The rows of one request in their uploaded file, read by their schema."""

    def __init__(
        self, source: Source, request: TrainingRequest, schema: TableSchema, late: Mapping[str, int], threads: int
    ) -> None:
        """Describe the rows of `source`. `late` has the line in which a column of NDJSON appears, unless the first."""
        assert request.weight_kind is not None
        self.schema = schema
        self.features = schema.encoded_features
        self.targets = request.targets
        self.terms = encoded_terms(request.terms, schema)
        self.blocks = term_blocks(request.terms, schema)
        self.weight_kind: WeightKind = request.weight_kind
        super().__init__(
            source,
            request.format,
            schema,
            weight_kind=request.weight_kind,
            late=late,
            groups=request.fold_groups,
            threads=threads,
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the model: terms or features, encoded."""
        return self.terms or self.features


def warm_up() -> None:
    """Load Arrow and BLAS, so that they reserve memory and start threads before the trainer's memory is limited."""
    # Arrow's own allocator reserves memory in pieces of up to 1 GiB, and could use any of it.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    list(CSV.batches(b'x\n"1"\n', Columns(["x"])))
    square = np.ones((64, 64))
    square @ square
