"""The files of a job, divided once into fragments, which are then profiled and summarised."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from app.data.columns.profile import ColumnProfile, ProfileRecord, TableProfile
from app.data.columns.schema import Dialect
from app.data.formats import BY_NAME
from app.data.formats.file_set import check_same_columns, located
from app.errors import InvalidInput
from app.training.fragments.executors import Executor, FragmentTask
from app.training.fragments.split import Fragment, FragmentFile, fragment_bytes
from app.training.fragments.wire import Fault, FileRecord, pack, unpack
from app.training.fragments.work import ColumnRecord, Profile, Profiled, Result, Spans, Split, Task


class FragmentedFiles:
    """Files in one format, and the executor of their fragments."""

    def __init__(
        self, files: Sequence[FragmentFile], format_name: str, executor: Executor, size: int | None = None
    ) -> None:
        """Divide the files into fragments of about `size` bytes."""
        self.files, self.format, self.executor = tuple(files), format_name, executor
        self._size = fragment_bytes(files) if size is None else size
        self._records = [FileRecord.of(file) for file in files]
        self.is_profiled = False  # True if the last profile was made from fragments
        self._known: tuple[Dialect, list[Spans]] | None = None

    def record(self, fragment: Fragment) -> FileRecord:
        return self._records[fragment.file]

    def name(self, fragment: Fragment) -> str:
        return self.files[fragment.file].name

    def task(self, index: int, fragment: Fragment, task: Task) -> FragmentTask:
        """Return a task with a label for messages."""
        name, span = self.name(fragment) or "the file", fragment.span
        label = name if span is None else f"rows {span.first_row} to {span.first_row + span.rows - 1} of {name}"
        return FragmentTask(index, label, pack(task))

    def split(self, dialect: Dialect, names: Sequence[str], poll: Callable[[], None]) -> list[Fragment]:
        """Return the fragments.

        Raises InvalidInput if a file is damaged, or if its columns, or the types of those in `names`, differ from the
        first file's.
        """
        if self._known is None or self._known[0] != dialect:
            self._known = dialect, self._spans(dialect, poll)
        fragments, first = list[Fragment](), self._known[1][0]
        for place, (file, found) in enumerate(zip(self.files, self._known[1], strict=True)):
            try:
                check_same_columns(found.columns, first.columns, self.files[0].name, names)
            except InvalidInput as error:
                raise located(error, file.name) from None
            fragments += [Fragment(place, span) for span in found.spans] or [Fragment(place, None)]
        return fragments

    def _spans(self, dialect: Dialect, poll: Callable[[], None]) -> list[Spans]:
        tasks = (
            self.task(place, Fragment(place, None), Split(record, self.format, dialect, self._size))
            for place, record in enumerate(self._records)
        )
        results: dict[int, Spans | Fault] = {
            place: unpack(content, Result) for place, content in self.executor.run(tasks, poll)
        }
        spans = []
        for place, file in enumerate(self.files):
            found = results[place]
            if isinstance(found, Fault):
                raise found.raised(file.name)
            spans.append(found)
        return spans

    def profile(
        self,
        columns: Mapping[str, ColumnProfile],
        numbers: Sequence[str],
        dialect: Dialect,
        step: Callable[[], None],
        note_rows: Callable[[int, int], None] = lambda _file, _rows: None,
    ) -> TableProfile | None:
        """Fill in the profiles of `columns`. Columns in `numbers` are read as numbers.

        Returns None if a column has so many texts that the rows have to be read in their order. `note_rows` is called
        with the number of rows of each file. Raises the error of the first fragment that has one.
        """
        self.is_profiled = False
        fragments = self.split(dialect, [*columns], step)
        if not all(fragment.span for fragment in fragments):
            return None
        profile = TableProfile(dict(columns), BY_NAME[self.format].first_row(dialect))
        recipes = [ColumnRecord.of(column) for column in columns.values()]
        arrived: dict[int, Profiled | Fault] = {}
        settled = 0

        def tasks() -> Iterator[FragmentTask]:
            before = 0
            for index, fragment in enumerate(fragments):
                record = self.record(fragment)
                task = Profile(record, fragment.span, self.format, dialect, recipes, list(numbers), before)
                yield self.task(index, fragment, task)
                before += fragment.rows

        results = self.executor.run(tasks(), step)
        try:
            for index, content in results:
                arrived[index] = unpack(content, Result)
                while (found := arrived.pop(settled, None)) is not None:
                    if isinstance(found, Fault):
                        raise found.raised(self.name(fragments[settled]))
                    if found.records is None or found.rows != fragments[settled].rows:
                        return None
                    if not _merged(profile, found.records, found.rows):
                        return None
                    settled += 1
        finally:
            results.close()
        profile.finish()
        self.is_profiled = True
        for place in range(len(self.files)):
            note_rows(place, sum(fragment.rows for fragment in fragments if fragment.file == place))
        return profile


def _merged(profile: TableProfile, records: Mapping[str, ProfileRecord], rows: int) -> bool:
    """Add the profiles of later rows. Return False if a column has too many texts then."""
    for name, record in records.items():
        profile.columns[name].merge(record)
    profile.rows += rows
    return not any(column.texts.is_full for column in profile.columns.values())
