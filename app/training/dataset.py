"""The rows of a job, read once for any number of fits.

If the parent changes during a fit, the job is fitted again without reading its rows again.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from app.data.training_rows import TrainingRows
from app.jobs.progress import ProgressReporter
from app.regression.streaming_qr import StreamingQR, summarise, summarise_folds
from app.regression.sufficient_statistics import SufficientStatistics
from app.regression.terms import expand, parse_terms
from app.regression.training_batch import TrainingBatch
from app.training.request import TrainingRequest

Key: TypeAlias = tuple[object, ...]


class JobRows:
    """The rows of one job in the spool, with their statistics cached until a request needs them differently."""

    def __init__(self, path: Path, late: Mapping[str, int], threads: int, tracker: ProgressReporter) -> None:
        self._path = path
        self._late = late
        self._threads = threads
        self._tracker = tracker
        self._stored: TrainingRows | None = None
        self._whole: tuple[Key, SufficientStatistics] | None = None
        self._folds: tuple[Key, dict[int, SufficientStatistics]] | None = None

    @property
    def dropped(self) -> int:
        """Number of rows that the last pass left out because a value is missing."""
        return 0 if self._stored is None else self._stored.dropped

    @property
    def warnings(self) -> list[str]:
        """Warnings of the last pass."""
        return [] if self._stored is None else self._stored.warnings

    @property
    def unused(self) -> list[str]:
        """The columns that are neither features nor targets, as the last pass found them."""
        return [] if self._stored is None else self._stored.unused

    def blocks(self, request: TrainingRequest) -> Iterator[TrainingBatch]:
        """Yield the rows and report the number read so far. Raises as `TrainingRows.batches` does."""
        assert request.weight_kind is not None
        self._stored = stored = TrainingRows(
            self._path,
            request.format,
            request.features,
            request.targets,
            request.weight,
            weight_kind=request.weight_kind,
            drop_missing=request.missing == "drop",
            header=request.header,
            late=self._late,
            groups=request.fold_groups,
            threads=self._threads,
        )
        terms = parse_terms(request.terms, request.features) if request.terms else None
        rows = 0
        for block in stored.batches():
            yield block if terms is None else block._replace(x=expand(block.x, terms))
            rows += len(block.x)
            self._tracker.advance("reading", rows=rows)

    def statistics(self, request: TrainingRequest, accumulator: type[StreamingQR]) -> SufficientStatistics:
        """Return the statistics of all rows."""
        key = _key(request)
        if self._whole is None or self._whole[0] != key:
            assert request.weight_kind is not None
            self._whole = key, summarise(self.blocks(request), accumulator, request.weight_kind)
        return self._whole[1]

    def statistics_of_folds(
        self, request: TrainingRequest, accumulator: type[StreamingQR], first: int
    ) -> dict[int, SufficientStatistics]:
        """Return the statistics of each fold; `first` is the number of the first row, which decides its fold."""
        key = (*_key(request), first if request.groups is None else None)
        if self._folds is None or self._folds[0] != key:
            assert request.folds is not None
            assert request.weight_kind is not None
            found = summarise_folds(
                self.blocks(request),
                request.folds,
                accumulator,
                weight_kind=request.weight_kind,
                seed=request.fold_seed,
                first=first,
            )
            self._folds = key, found
        return dict(self._folds[1])


def _key(request: TrainingRequest) -> Key:
    """Return the options that depend on the parent and change how rows are read."""
    return request.weight_kind, request.terms
