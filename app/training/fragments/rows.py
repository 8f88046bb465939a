"""The rows of a job whose files are summarised in fragments."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from threadpoolctl import threadpool_limits

from app.data.batch import FileSet
from app.data.columns.schema import TableSchema
from app.errors import LinserveError
from app.regression.errors import FitError
from app.regression.sufficient_statistics import SufficientStatistics
from app.regression.summary_plan import SummaryPlan
from app.training.dataset import JobRows
from app.training.fragments.executors import FragmentTask
from app.training.fragments.files import FragmentedFiles
from app.training.fragments.merge import MergeTree
from app.training.fragments.split import Fragment
from app.training.fragments.wire import Fault, unpack
from app.training.fragments.work import Result, RowsRecord, Summarise, Summary
from app.training.request import TrainingRequest

OnFragments: TypeAlias = Callable[[int, int], None]  # called with the fragments that are done and their number


class FragmentedRows(JobRows):
    """Rows of one or several files, which are summarised in fragments, and read one after the other otherwise."""

    def __init__(
        self,
        files: FragmentedFiles,
        request: TrainingRequest,
        schema: TableSchema,
        *,
        threads: int = 1,
        on_fragments: OnFragments = lambda _done, _count: None,
    ) -> None:
        """Describe the rows of files. `on_fragments` is called when a fragment is done."""
        self._set = FileSet(files.files)
        first = files.files[0]
        super().__init__(self._set if first.name else first.source(), request, schema, {}, threads)
        self.files, self.on_fragments = files, on_fragments
        assert request.weight_kind is not None
        self._how = RowsRecord(request.format, schema, request.weight_kind, request.fold_groups)

    def summarise(self, plan: SummaryPlan, rows_read: Callable[[int], None]) -> dict[int, SufficientStatistics]:
        """Return the statistics of all rows by fold, or under the key 0 if there are no folds; empty without rows.

        Raises the error of the first fragment that has one.
        """
        self.begin_pass()
        fragments = self.files.split(self.schema.dialect, self._names, lambda: rows_read(0))
        statistics = _Pass(self, fragments, plan, rows_read).run()
        self.check_left()
        return statistics

    def task(self, index: int, fragment: Fragment, plan: SummaryPlan) -> FragmentTask:
        """Return the task to summarise a fragment."""
        task = Summarise(self.files.record(fragment), fragment.span, self._how, plan)
        return self.files.task(index, fragment, task)

    def note_rows(self, place: int, rows: int) -> None:
        """Note the number of rows of a file."""
        self._set.note_rows(place, rows)


@dataclass
class _Pass:
    """One pass over the fragments.

    The number of the first row of a fragment, by which rows are divided into folds, is the number of complete rows
    before it. It is known only when these are read. Each fragment is first summarised as if no row before it was left
    out. Those for which that turns out to be wrong are summarised again.
    """

    rows: FragmentedRows
    fragments: list[Fragment]
    plan: SummaryPlan
    rows_read: Callable[[int], None]
    tree: MergeTree = field(init=False)
    arrived: dict[int, Summary | Fault] = field(default_factory=dict)
    assumed: dict[int, tuple[int, int]] = field(default_factory=dict)  # first number, and first row of the file
    again: dict[int, tuple[int, int]] = field(default_factory=dict)  # by fragment, the right value of `assumed`
    settled: int = 0  # number of fragments, from the first, whose rows are numbered
    first: int = 0  # number of the next row
    row: int = 0  # rows read of the same file before the next fragment, minus those in its description
    file_rows: int = 0  # rows of the same file before the next fragment
    rows_before: list[int] = field(default_factory=lambda: [0])  # rows of all files before each file
    read: int = 0
    done: int = 0

    def __post_init__(self) -> None:
        self.tree = MergeTree(len(self.fragments))
        self.first = self.plan.first

    def run(self) -> dict[int, SufficientStatistics]:
        # Threads that wait for each other on busy cores would take many times as long for these small matrices.
        with threadpool_limits(1, user_api="blas"):
            return self._summarise()

    def _summarise(self) -> dict[int, SufficientStatistics]:
        self.rows.on_fragments(0, len(self.fragments))
        for index, summary in self._results(range(len(self.fragments))):
            self.arrived[index] = summary
            self._settle()
        self.assumed |= self.again
        for index, summary in self._results(sorted(self.again)):
            if isinstance(summary, Fault):
                raise summary.raised(self.rows.files.name(self.fragments[index]))
            self._add(index, summary)
        return self.tree.root()

    def _results(self, indices: Sequence[int]) -> Iterator[tuple[int, Summary | Fault]]:
        results = self.rows.files.executor.run(map(self._task, indices), lambda: self.rows_read(self.read))
        try:
            for index, content in results:
                yield index, unpack(content, Result)
        finally:
            results.close()

    def _task(self, index: int) -> FragmentTask:
        if index not in self.assumed:
            before = sum(fragment.rows for fragment in self.fragments[self.settled : index])
            self.assumed[index] = (self.first + before, self._first_row(index))
        first, row = self.assumed[index]
        fragment = self.fragments[index]
        if fragment.span is not None:
            fragment = replace(fragment, span=replace(fragment.span, first_row=row))
        return self.rows.task(index, fragment, replace(self.plan, first=first))

    def _first_row(self, index: int) -> int:
        span = self.fragments[index].span
        is_next = self.fragments[index].file == self.fragments[min(self.settled, index)].file
        return 0 if span is None else span.first_row + (self.row if is_next else 0)

    def _settle(self) -> None:
        """Number each fragment once all those before it have arrived."""
        while (summary := self.arrived.pop(self.settled, None)) is not None:
            index = self.settled
            right = (self.first, self._first_row(index))
            is_numbered = self.plan.folds is not None and not self.plan.folds.by_group
            is_placed = self.assumed[index][1] == right[1]
            if isinstance(summary, Fault):
                raise self._error(index, summary if is_placed else None, right)
            counts, fragment = summary.counts, self.fragments[index]
            if (is_numbered and self.assumed[index][0] != right[0]) or (counts.rounded and not is_placed):
                self.again[index] = right
            else:
                self._add(index, summary)
            self.first += counts.complete
            self.row += counts.read - fragment.rows
            self.file_rows += counts.read
            self.settled += 1
            if self.settled == len(self.fragments) or self.fragments[self.settled].file != fragment.file:
                self.rows.note_rows(fragment.file, self.file_rows)
                self.rows_before.append(self.rows_before[-1] + self.file_rows)
                self.row = self.file_rows = 0

    def _error(self, index: int, fault: Fault | None, right: tuple[int, int]) -> LinserveError | FitError:
        """Return the error of a fragment, found again if its place was not right."""
        if fault is None:
            self.assumed[index] = right
            for _, found in self._results([index]):
                fault = found if isinstance(found, Fault) else None
        assert fault is not None
        return fault.raised(self.rows.files.name(self.fragments[index]))

    def _add(self, index: int, summary: Summary) -> None:
        self.tree.add(index, summary.statistics)
        # Rounded integers are noted by their rows over all files.
        before = self.rows_before[self.fragments[index].file]
        rounded = {name: before + row for name, row in summary.counts.rounded.items()}
        self.rows.add_counts(replace(summary.counts, rounded=rounded))
        self.read += summary.counts.complete
        self.done += 1
        self.rows_read(self.read)
        self.rows.on_fragments(self.done, len(self.fragments))
