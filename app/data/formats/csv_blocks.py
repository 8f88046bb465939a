"""Blocks of whole CSV rows, parsed by pyarrow, in parallel and in the file's order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

from app.data.batch import Array, CellBatch, Columns, RowBatch, from_record_batch
from app.data.columns.gaps import GAP_TEXTS, WEAK_GAP_TEXTS, WORD_GAP_TEXTS
from app.data.columns.text_rows import count_rows, has_spaces, without_spaces
from app.data.formats.csv_faults import explained_fault, value_after_end
from app.data.formats.csv_header import Layout, not_utf8
from app.data.lazy_pyarrow import pa, raise_if_memory
from app.data.rounding import Rounded, has_large
from app.errors import InvalidInput

Parsed = TypeVar("Parsed", RowBatch, CellBatch)
UNKNOWN_ROW = 1  # Number of the first row of a block while those before it are being parsed.
# Unquoted texts that mark a gap in a column of words.
_WORD_GAPS = (*sorted(WORD_GAP_TEXTS), "NA")


class BlockParser:
    """Parses blocks of whole rows of one file. Its methods may be called from several threads."""

    def __init__(self, layout: Layout, columns: Columns) -> None:
        self._layout = layout
        self._columns = columns
        self._known: set[int] = set()  # Columns in which an integer was rounded; no later block is searched.
        self._numbers = frozenset(columns.numbers)
        self._has_rare_gaps = False  # True if a gap other than an empty cell was found
        self._gaps = sorted({*GAP_TEXTS, *WEAK_GAP_TEXTS, *columns.na})

    def read(self, blocks: Iterable[bytes], threads: int) -> Iterator[RowBatch]:
        """Yield the rows of a file, with its words unchanged. Raises InvalidInput with the place of the first fault."""
        for batch in in_order(blocks, self._rows, self._layout.first_row, threads):
            self._known.update(index for index, _ in batch.rounded)
            if len(batch.values):
                yield batch

    def read_cells(self, blocks: Iterable[bytes], threads: int) -> Iterator[CellBatch]:
        """Yield the cells of a file: numbers, and text with null in place of gaps. Raises as `read`."""
        for batch in in_order(blocks, self._cells, self._layout.first_row, threads):
            self._known.update(map(self._columns.numbers.index, batch.rounded))
            if batch.cells.num_rows:
                yield batch

    def _rows(self, block: bytes, first_row: int) -> RowBatch:
        block = self._cleaned(block, first_row, words=bool(self._columns.keep))
        batch = self._numbers_of(block, first_row, self._columns)
        self._check_end(batch, first_row)
        return from_record_batch(batch, self._columns, first_row, lambda values: self._texts(block, values))

    def _cells(self, block: bytes, first_row: int) -> CellBatch:
        words = [name for name in self._columns.names if name not in self._numbers]
        unchanged = self._columns.unchanged
        block = self._cleaned(block, first_row, words=bool(words))
        columns = self._columns._replace(keep=words, missing=True)
        cells: dict[str, pa.Array] = {}
        if words and b'"' in block:
            # A quoted NA is a word here. Numbers are read separately, because in them a quoted NA is a gap.
            texts = self._placed(block, first_row, self._word_options(words))
            self._check_end(texts, first_row)
            cells = {name: _without_empty(texts.column(name)) for name in words}
            if unchanged:
                texts = self._placed(block, first_row, text_options([*unchanged]))
                cells |= {name: texts.column(name) for name in unchanged}
            columns = columns._replace(keep=())
        rounded: Rounded = ()
        if columns.names:
            batch = self._numbers_of(block, first_row, columns)
            self._check_end(batch, first_row)
            cells |= {name: batch.column(name) for name in columns.numbers}
            cells |= {name: batch.column(name) for name in columns.keep if name in unchanged}
            cells |= {name: _without_gaps(batch.column(name)) for name in columns.keep if name not in unchanged}
            numbers = columns._replace(keep=())
            rounded = from_record_batch(batch, numbers, first_row, lambda values: self._texts(block, values)).rounded
        return CellBatch(
            pa.RecordBatch.from_pydict({name: cells[name] for name in self._columns.names}),
            {self._columns.numbers[index]: row for index, row in rounded},
        )

    def _cleaned(self, block: bytes, first_row: int, *, words: bool) -> bytes:
        """Return a block that pyarrow can divide, after checking its encoding. Numbers may have spaces around them."""
        dialect = self._layout.dialect
        if not block.isascii():
            try:
                block.decode()
            except UnicodeDecodeError as error:
                raise not_utf8(first_row + count_rows(block[: error.start], dialect.sep)) from None
        if dialect.sep == " " or ((words or b'"' in block) and has_spaces(block, dialect.sep)):
            return without_spaces(block, dialect.sep)
        return block

    def _numbers_of(self, block: bytes, first_row: int, columns: Columns) -> "pa.RecordBatch":
        """Return the columns, with null in place of the gaps of numbers. Raises InvalidInput with the place of a fault.

        The more texts mark a gap, the slower pyarrow reads numbers, so most are tried only after a fault.
        """
        if not self._has_rare_gaps:
            try:
                return self._parsed(block, self._options(columns, [""] if columns.missing else []))
            except pa.ArrowException as error:
                raise_if_memory(error)
        gaps = self._options(columns, self._gaps)
        try:
            batch = self._parsed(block, gaps)
        except pa.ArrowException as error:
            raise_if_memory(error)
            # A cell of spaces is a gap.
            batch = self._placed(without_spaces(block, self._layout.dialect.sep), first_row, gaps)
        self._has_rare_gaps = True
        return batch

    def _placed(self, block: bytes, first_row: int, options: "pa.csv.ConvertOptions") -> "pa.RecordBatch":
        """Return the columns of a block. Raises InvalidInput with the place of a fault."""
        try:
            return self._parsed(block, options)
        except pa.ArrowException as error:
            raise_if_memory(error)
            raise explained_fault(str(error), self._layout, self._columns, first_row) from None

    def _word_options(self, words: Sequence[str]) -> "pa.csv.ConvertOptions":
        end = [] if self._layout.end is None else [self._layout.end]
        return text_options([*words, *end], _WORD_GAPS)

    def _options(self, columns: Columns, gaps: Sequence[str]) -> "pa.csv.ConvertOptions":
        types = dict.fromkeys(columns.keep, pa.string()) | dict.fromkeys(columns.numbers, pa.float64())
        if self._layout.end is not None:
            types[self._layout.end] = pa.string()
        decimal = self._layout.dialect.decimal
        return pa.csv.ConvertOptions(
            include_columns=list(types), column_types=types, null_values=gaps, decimal_point=decimal
        )

    def _parsed(self, block: bytes, options: "pa.csv.ConvertOptions") -> "pa.RecordBatch":
        has_quotes = b'"' in block
        if block.isspace() and not block.strip(b"\r\n"):  # pyarrow refuses an empty file.
            types = options.column_types
            return pa.RecordBatch.from_pydict({name: pa.array([], types[name]) for name in options.include_columns})
        table = pa.csv.read_csv(
            pa.py_buffer(block),
            # With several threads pyarrow does not name the row of a fault.
            read_options=pa.csv.ReadOptions(
                use_threads=False, block_size=len(block) + 1, column_names=self._layout.columns
            ),
            parse_options=pa.csv.ParseOptions(
                delimiter=self._layout.dialect.sep,
                quote_char='"' if has_quotes else False,
                newlines_in_values=has_quotes,
            ),
            convert_options=options,
        )
        return table.combine_chunks().to_batches()[0]

    def _texts(self, block: bytes, values: Array) -> "pa.RecordBatch | None":
        """Parse the columns with large values again, as text, apart from the known ones."""
        names = self._columns.numbers
        large = [names[index] for index in range(len(values)) if index not in self._known and has_large(values[index])]
        return self._parsed(block, text_options(large)) if large else None

    def _check_end(self, batch: "pa.RecordBatch", first_row: int) -> None:
        """Raise InvalidInput if the column that has to be empty has a value."""
        if self._layout.end is None:
            return
        lengths = pa.compute.binary_length(pa.compute.utf8_trim_whitespace(batch.column(self._layout.end)))
        if (index := pa.compute.index(pa.compute.greater(lengths, 0), True).as_py()) >= 0:
            raise value_after_end(first_row + index)


def text_options(names: Sequence[str], null_values: Sequence[str] = ()) -> "pa.csv.ConvertOptions":
    return pa.csv.ConvertOptions(
        include_columns=list(names),
        column_types=dict.fromkeys(names, pa.string()),
        null_values=list(null_values),
        strings_can_be_null=bool(null_values),
        quoted_strings_can_be_null=False,
    )


@lru_cache
def _gap_set(texts: Sequence[str]) -> "pa.Array":
    return pa.array(texts, pa.string())


def _without_gaps(texts: "pa.Array") -> "pa.Array":
    """Return unquoted texts with null in place of gaps."""
    return _with_null(texts, pa.compute.is_in(texts, value_set=_gap_set(_WORD_GAPS)))


def _without_empty(texts: "pa.Array") -> "pa.Array":
    """Return texts with null in place of quotes without content."""
    return _with_null(texts, pa.compute.equal(texts, ""))


def _with_null(texts: "pa.Array", gaps: "pa.Array") -> "pa.Array":
    if not pa.compute.any(gaps).as_py():
        return texts
    return pa.compute.if_else(pa.compute.fill_null(gaps, True), pa.scalar(None, texts.type), texts)


def in_order(
    blocks: Iterable[bytes], parse: Callable[[bytes, int], Parsed], first_row: int, threads: int
) -> Iterator[Parsed]:
    """Yield the parsed blocks in their order. `parse` takes a block and the number of its first row."""
    if threads <= 1:
        for block in blocks:
            parsed = parse(block, first_row)
            yield parsed
            first_row += _rows_of(parsed)
        return
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[tuple[bytes, Future[Parsed]]] = deque()
        # Blocks are read here, in the file's order; at most `threads` + 1 are in memory.
        for block in blocks:
            ahead.append((block, pool.submit(parse, block, UNKNOWN_ROW)))
            if len(ahead) > threads:
                yield (parsed := _placed(*ahead.popleft(), parse, first_row))
                first_row += _rows_of(parsed)
        while ahead:
            yield (parsed := _placed(*ahead.popleft(), parse, first_row))
            first_row += _rows_of(parsed)


def _placed(block: bytes, future: "Future[Parsed]", parse: Callable[[bytes, int], Parsed], first_row: int) -> Parsed:
    """Return the parsed block. Raises InvalidInput with the place of its fault, which is known only now."""
    try:
        return future.result()
    except InvalidInput:
        return parse(block, first_row)


def _rows_of(parsed: RowBatch | CellBatch) -> int:
    return len(parsed.values) if isinstance(parsed, RowBatch) else int(parsed.cells.num_rows)
