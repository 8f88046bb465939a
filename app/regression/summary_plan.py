"""The options of a summary of rows, as a value that can be sent to another process or machine.

Parts of the rows can be summarised apart, in threads, in other processes or on other machines, and merged.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from app.regression.errors import NO_ROWS, InvalidData
from app.regression.folds import FoldOptions
from app.regression.sufficient_statistics import SufficientStatistics, WeightKind
from app.regression.terms import expand, parse_terms
from app.regression.training_batch import TrainingBatch

if TYPE_CHECKING:  # they load scipy, which the web process has no use for
    from app.regression.summaries import QRFactory
    from app.regression.threads import Threads


@dataclass(frozen=True)
class SummaryPlan:
    """Everything besides the rows that their statistics depend on. It can be pickled."""

    features: tuple[str, ...]
    terms: tuple[str, ...] = ()  # columns made from the features; none if the columns are the features
    weight_kind: WeightKind = "precision"
    blocks: tuple[slice, ...] = ()  # places of each category's indicators among the columns
    folds: FoldOptions | None = None
    # Number of the first row, which decides its random fold. Rows of weight 0 have no numbers.
    first: int = 0
    device: Literal["cpu", "cuda"] = "cpu"

    @property
    def key(self) -> tuple[object, ...]:
        """Two plans for the same rows with equal keys give the same statistics."""
        return (self.weight_kind, self.terms, self.blocks, self.folds, self.first)

    def columns(self, batches: Iterable[TrainingBatch]) -> Iterator[TrainingBatch]:
        """Yield each batch with the columns of the plan in place of the features. Raises InvalidTerms."""
        if not self.terms:
            yield from batches
            return
        terms = parse_terms(self.terms, self.features)
        for batch in batches:
            yield batch._replace(x=expand(batch.x, terms))


def summarise_batches(
    plan: SummaryPlan,
    batches: Iterable[TrainingBatch],
    rows_read: Callable[[int], None] = lambda _: None,
    *,
    threads: int = 1,
    reused: bool = False,
) -> dict[int, SufficientStatistics]:
    """Return the statistics of rows by fold, or under the key 0 if there are no folds. Empty without rows.

    `plan.first` is the number of the first of these rows. `rows_read` is called with the number of rows after each
    batch, and may raise. The statistics have the same bits for any number of threads. With `reused`, the next batch may
    have the memory of the one before.

    Raises InvalidTerms, and ValuesTooLarge if a deviation exceeds the range of 64-bit numbers.
    """
    from app.regression.summaries import summarise_folds, summarise_stream
    from app.regression.threads import Threads

    columns = plan.columns(counted(batches, rows_read))
    with Threads(threads) as started:
        make_qr = _accumulator(plan, started)
        if plan.folds is None:
            statistics = summarise_stream(columns, make_qr, plan.weight_kind, plan.blocks, reused=reused)
            return {} if statistics is None else {0: statistics}
        return summarise_folds(  # copies the rows
            columns,
            plan.folds.count,
            make_qr,
            weight_kind=plan.weight_kind,
            seed=plan.folds.seed,
            first=plan.first,
            blocks=plan.blocks,
        )


def counted(batches: Iterable[TrainingBatch], rows_read: Callable[[int], None]) -> Iterator[TrainingBatch]:
    """Yield the batches, and call `rows_read` with the number of rows so far after each."""
    rows = 0
    for batch in batches:
        yield batch
        rows += len(batch.x)
        rows_read(rows)


def merge_summaries(
    parts: Sequence[Mapping[int, SufficientStatistics]],
) -> dict[int, SufficientStatistics]:
    """Return the statistics by fold of the rows of all parts, each merged with its neighbour in a binary tree.

    Raises InvalidData if no part has rows, and as `SufficientStatistics.merge` does.
    """
    merged = [dict(part) for part in parts if part]
    if not merged:
        raise InvalidData(NO_ROWS)
    while len(merged) > 1:
        pairs = [_merge_two(*merged[start : start + 2]) for start in range(0, len(merged) - 1, 2)]
        merged = pairs + merged[2 * len(pairs) :]
    return dict(sorted(merged[0].items()))


def _merge_two(
    first: dict[int, SufficientStatistics], second: dict[int, SufficientStatistics]
) -> dict[int, SufficientStatistics]:
    return {**second, **{fold: part.merge(second[fold]) if fold in second else part for fold, part in first.items()}}


def _accumulator(plan: SummaryPlan, threads: "Threads") -> "QRFactory":
    from app.regression.level_qr import MIN_INDICATORS, LevelQR
    from app.regression.streaming_qr import StreamingQR

    if plan.device == "cuda":
        from app.regression.streaming_qr_cuda import CudaStreamingQR  # loads torch

        return CudaStreamingQR
    widest = max(plan.blocks, key=lambda block: block.stop - block.start, default=slice(0, 0))
    if widest.stop - widest.start >= MIN_INDICATORS:
        return partial(LevelQR, block=widest, threads=threads)
    return partial(StreamingQR, threads=threads)
