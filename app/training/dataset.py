"""The rows of a job, as `fit_model` reads them."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from app.data.training_rows import TrainingRows
from app.regression.sufficient_statistics import WeightKind
from app.regression.training_batch import TrainingBatch
from app.training.request import TrainingRequest


class JobRows:
    """The rows of one request in their uploaded file."""

    def __init__(self, path: Path, request: TrainingRequest, late: Mapping[str, int], threads: int) -> None:
        """Describe the file at `path`. `late` has the line in which each column of NDJSON appears, unless the first."""
        assert request.weight_kind is not None
        self.features = request.features
        self.targets = request.targets
        self.terms = request.terms
        self.weight_kind: WeightKind = request.weight_kind
        self._stored = TrainingRows(
            path,
            request.format,
            request.features,
            request.targets,
            request.weight,
            weight_kind=request.weight_kind,
            drop_missing=request.missing == "drop",
            header=request.header,
            late=late,
            groups=request.fold_groups,
            threads=threads,
        )

    def batches(self) -> Iterator[TrainingBatch]:
        """Read the rows once. Raises InvalidInput with row and column of the first fault."""
        yield from self._stored.batches()

    @property
    def dropped(self) -> int:
        """Number of rows that the last pass left out because a value is missing."""
        return self._stored.dropped

    @property
    def warnings(self) -> list[str]:
        """Warnings of the last pass."""
        return self._stored.warnings

    @property
    def unused(self) -> list[str]:
        """The columns that are neither features nor targets, as the last pass found them."""
        return self._stored.unused
