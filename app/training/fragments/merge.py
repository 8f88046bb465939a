"""Merge the summaries of fragments in a fixed binary tree, in whatever order they arrive."""

from app.regression.sufficient_statistics import SufficientStatistics
from app.regression.summary_plan import merge_summaries

Statistics = dict[int, SufficientStatistics]  # by fold; empty without rows


class MergeTree:
    """Leaf i is the summary of fragment i. Two neighbours are merged when both are there, and then forgotten."""

    def __init__(self, count: int) -> None:
        self._widths = [count]  # number of the nodes of each level
        while self._widths[-1] > 1:
            self._widths.append(-(-self._widths[-1] // 2))
        self._waiting: dict[tuple[int, int], Statistics] = {}

    def add(self, index: int, statistics: Statistics) -> None:
        """Add a leaf. Raises as `SufficientStatistics.merge` does."""
        for level, width in enumerate(self._widths[:-1]):
            other = index ^ 1
            if other < width:
                if (level, other) not in self._waiting:
                    self._waiting[level, index] = statistics
                    return
                pair = (statistics, self._waiting.pop((level, other)))
                filled = [part for part in (pair if index < other else pair[::-1]) if part]
                statistics = merge_summaries(filled) if filled else {}
            index //= 2
        self._waiting[len(self._widths) - 1, 0] = statistics

    def root(self) -> Statistics:
        """Return the statistics of all fragments, when all leaves are there."""
        return dict(sorted(self._waiting.pop((len(self._widths) - 1, 0)).items()))
