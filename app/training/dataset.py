"""The rows of a job, as `fit_model` reads them."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from app.data.batch import Columns
from app.data.columns.schema import Dialect
from app.data.formats.csv import CSV
from app.data.training_rows import TrainingRows
from app.regression.sufficient_statistics import WeightKind
from app.training.request import TrainingRequest


class JobRows(TrainingRows):
    """The rows of one request in their uploaded file."""

    def __init__(self, path: Path, request: TrainingRequest, late: Mapping[str, int], threads: int) -> None:
        """Describe the file at `path`. `late` has the line in which each column of NDJSON appears, unless the first."""
        assert request.weight_kind is not None
        self.features = request.features
        self.targets = request.targets
        self.terms = request.terms
        self.blocks: tuple[slice, ...] = ()  # places of each category's indicators, see TrainingData
        self.weight_kind: WeightKind = request.weight_kind
        super().__init__(
            path,
            request.format,
            request.features,
            request.targets,
            request.weight,
            weight_kind=request.weight_kind,
            drop_missing=request.reading.missing in (None, "drop"),
            dialect=Dialect(header=request.reading.header),
            late=late,
            groups=request.fold_groups,
            threads=threads,
        )


def warm_up() -> None:
    """Load Arrow and BLAS, so that they reserve their memory before the trainer's is limited."""
    # Arrow's own allocator reserves memory in pieces of up to 1 GiB, and could use any of it.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    list(CSV.batches(b"x\n1\n", Columns(["x"])))
    square = np.ones((64, 64))
    square @ square
