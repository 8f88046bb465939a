"""Summarise a stream of batches by sufficient statistics in one pass, for all rows or for each fold."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol, TypeAlias

import numpy as np
from threadpoolctl import ThreadpoolController

from app.regression.design import WIDE
from app.regression.errors import NO_ROWS, InvalidData
from app.regression.folds import divide
from app.regression.streaming_qr import StreamingQR
from app.regression.sufficient_statistics import Array, SufficientStatistics, WeightKind
from app.regression.training_batch import TrainingBatch

# The BLAS libraries of numpy and scipy. A chunk is too small for several threads, which would wait for each other.
_BLAS = ThreadpoolController().select(user_api="blas")


def few_threads(columns: int) -> AbstractContextManager[object]:
    """Return a context in which the matrices of a wide design are decomposed by one thread.

    Threads that wait for each other on busy cores take five times as long.
    """
    context: AbstractContextManager[object] = _BLAS.limit(limits=1 if columns > WIDE else None)
    return context


def one_thread() -> AbstractContextManager[object]:
    """Return a context in which BLAS uses one thread, for chunks that are too small for several."""
    context: AbstractContextManager[object] = _BLAS.limit(limits=1)
    return context


def available_threads() -> int:
    """Return the number of threads that BLAS may use: one per core, unless the environment or the caller limits it."""
    return max(1, min((library["num_threads"] for library in _BLAS.info()), default=1))


class Accumulator(Protocol):
    """Adds up the rows of batches."""

    def add(self, batch: TrainingBatch) -> None:
        """Add a batch, whose rows may not change until `flush`."""

    def flush(self) -> None:
        """Wait until the rows of all batches are added."""

    def statistics(self, weight_kind: WeightKind) -> SufficientStatistics: ...


QRFactory: TypeAlias = Callable[[TrainingBatch], Accumulator]


def summarise(
    batches: Iterable[TrainingBatch],
    make_qr: QRFactory = StreamingQR,
    weight_kind: WeightKind = "precision",
    blocks: Sequence[slice] = (),
) -> SufficientStatistics:
    """Return the statistics of a stream of batches. `make_qr` is called with the first batch.

    `blocks` are the places of the indicators of each category, whose rows are counted.

    Raises InvalidData if no row has a positive weight, and ValuesTooLarge if a deviation exceeds the range of 64-bit
    numbers.
    """
    statistics = summarise_stream(batches, make_qr, weight_kind, blocks)
    if statistics is None:
        raise InvalidData(NO_ROWS)
    return statistics


def summarise_stream(
    batches: Iterable[TrainingBatch],
    make_qr: QRFactory = StreamingQR,
    weight_kind: WeightKind = "precision",
    blocks: Sequence[slice] = (),
    *,
    reused: bool = False,
) -> SufficientStatistics | None:
    """Return the statistics of a stream of batches as `summarise` does, or None if no row has a positive weight.

    With `reused`, the next batch may have the memory of the one before.
    """
    filled = (batch for batch in map(TrainingBatch.without_zero_weights, batches) if len(batch.x))
    return _summarise_each(((0, batch) for batch in filled), make_qr, weight_kind, blocks, reused=reused).get(0)


def summarise_folds(
    batches: Iterable[TrainingBatch],
    folds: int,
    make_qr: QRFactory = StreamingQR,
    weight_kind: WeightKind = "precision",
    *,
    seed: int = 0,
    first: int = 0,
    blocks: Sequence[slice] = (),
) -> dict[int, SufficientStatistics]:
    """Return the statistics of each fold that has rows, by the fold's number, in one pass. Empty without rows.

    A row's fold is that of its batch's `fold`, if given. Otherwise each `folds` consecutive rows of positive weight are
    a random permutation of the folds. `first` is the number of the first row.

    Raises ValuesTooLarge as `summarise` does.
    """

    def parts() -> Iterator[tuple[int, TrainingBatch]]:
        row = first
        for batch in map(TrainingBatch.without_zero_weights, batches):
            yield from divide(batch, folds, seed, row)
            row += len(batch.x)

    return _summarise_each(parts(), make_qr, weight_kind, blocks)


def _summarise_each(
    parts: Iterable[tuple[int, TrainingBatch]],
    make_qr: QRFactory,
    weight_kind: WeightKind,
    blocks: Sequence[slice],
    *,
    reused: bool = False,
) -> dict[int, SufficientStatistics]:
    qrs: dict[int, Accumulator] = {}
    counts: dict[int, Array] = {}
    with _BLAS.limit(limits=1), np.errstate(over="ignore", invalid="ignore"):
        for fold, rows in parts:
            if fold not in qrs:
                qrs[fold] = make_qr(rows)
                counts[fold] = np.full(rows.x.shape[1], -1.0)
                for block in blocks:
                    counts[fold][block] = 0.0
            qrs[fold].add(rows)
            if reused:
                qrs[fold].flush()
            for block in blocks:
                counts[fold][block] += _indicator_rows(rows, block, weight_kind)
        summaries = {fold: qrs[fold].statistics(weight_kind) for fold in sorted(qrs)}
    if not blocks:
        return summaries
    return {fold: replace(summary, indicator_rows=counts[fold].astype(np.int64)) for fold, summary in summaries.items()}


def _indicator_rows(rows: TrainingBatch, block: slice, weight_kind: WeightKind) -> Array:
    """Return the number of rows in which each indicator of a block is 1. The numbers are whole and below 2^53."""
    if weight_kind == "frequency" and rows.sample_weight is not None:
        return rows.sample_weight @ rows.x[:, block]
    return np.asarray(rows.x[:, block].sum(axis=0))
