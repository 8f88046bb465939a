"""Convert frames of any kind that narwhals knows to Arrow, and results back to a frame of the same kind."""

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import narwhals as nw

from linserve._bodies import ARROW, json_body
from linserve._steps import BytesBody
from linserve.errors import UnreadableRows

_NEEDS_PYARROW = "Frames of this kind travel as Arrow, which needs pyarrow: pip install 'linserve[pyarrow]'"
_NO_TYPE = "The frame has a column that Arrow has no type for."


def is_frame(rows: object) -> bool:
    """Return True if the rows are a frame of a known kind."""
    return not isinstance(rows, str | bytes | list | tuple | dict) and isinstance(
        _known(rows), nw.DataFrame | nw.LazyFrame
    )


def _known(rows: Any) -> Any:
    """Return a frame as one of narwhals, and anything else as it is. Raises UnreadableRows."""
    try:
        return nw.from_native(rows, pass_through=True)
    except nw.exceptions.NarwhalsError as error:  # such as two columns with the same name
        raise UnreadableRows(f"The frame cannot be read. {error}") from error


class Frame:
    """A frame of a user. Results for its rows are of the same kind, in the same order, with the same index."""

    def __init__(self, frame: Any) -> None:
        known = _known(frame)
        self._is_narwhals = known is frame
        self._is_lazy = isinstance(known, nw.LazyFrame)
        self._backend = known.implementation
        self._rows: nw.DataFrame[Any] = known.collect() if isinstance(known, nw.LazyFrame) else known

    def body(self) -> BytesBody:
        """Return the rows as an Arrow stream. Raises UnreadableRows if a column has no type there."""
        buffer = io.BytesIO()
        native = self._rows.to_native()
        if self._rows.implementation.is_polars():
            for name, dtype in native.schema.items():
                if _has_128_bits(dtype):
                    raise UnreadableRows(
                        f"{_NO_TYPE} Column {name!r} has the type {dtype}. Cast it to Int64 or Float64."
                    )
            native.write_ipc_stream(buffer)
        else:
            arrow = _pyarrow()
            try:
                table = self._table()
            except (arrow.ArrowException, TypeError, ValueError) as error:
                reason = ": ".join(map(str, reversed(error.args)))
                raise UnreadableRows(f"{_NO_TYPE} {reason}") from error
            with arrow.ipc.new_stream(buffer, table.schema) as writer:
                writer.write_table(table)
        return BytesBody(buffer.getvalue(), ARROW)

    def _table(self) -> Any:
        """Return the rows as a pyarrow table, with the index if its levels have names and Arrow types."""
        implementation = self._rows.implementation
        if not (implementation.is_pandas() or implementation.is_modin()):
            return self._rows.to_arrow()
        rows = self._rows.to_pandas()
        arrow = _pyarrow()
        if self._has_named_index:
            with contextlib.suppress(arrow.ArrowException, TypeError, ValueError):
                return arrow.Table.from_pandas(rows, preserve_index=True)
        return arrow.Table.from_pandas(rows, preserve_index=False)

    @property
    def _has_named_index(self) -> bool:
        """True if the levels of the index have different names, which are not those of columns."""
        implementation = self._rows.implementation
        if not (implementation.is_pandas() or implementation.is_modin()):
            return False
        names = list(self._rows.to_native().index.names)
        columns = {str(name) for name in self._rows.columns}
        are_names = all(isinstance(name, str) for name in names) and len({*names}) == len(names)
        return are_names and not columns.intersection(names)

    @property
    def is_empty(self) -> bool:
        return len(self._rows) == 0

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows as dictionaries, without the index."""
        return list(self._rows.iter_rows(named=True))

    def levels(self) -> dict[str, list[Any]]:
        """Return the values of each level of the index that has a name, and values that JSON has."""
        if not self._has_named_index:
            return {}
        index: nw.DataFrame[Any] = nw.from_native(self._rows.to_native().index.to_frame(index=False), eager_only=True)
        found = {}
        for name in index.columns:
            values = index.get_column(name).to_list()
            with contextlib.suppress(UnreadableRows):
                json_body(values)
                found[name] = values
        return found

    def from_arrow(self, content: bytes, keep: Iterable[str] = ()) -> Any:
        """Return the results in an Arrow stream. The columns of `keep` are those of this frame, with their types."""
        if self._backend.is_polars():
            import polars as pl  # The user's frame has loaded it.

            results: nw.DataFrame[Any] = nw.from_native(pl.read_ipc_stream(content), eager_only=True)
        else:
            table = _pyarrow().ipc.open_stream(content).read_all()
            results = nw.from_arrow(table, backend=self._eager_backend)
        return self._like_the_rows(results, keep)

    def from_columns(self, columns: Mapping[str, Sequence[Any]]) -> Any:
        """Return results that came as JSON."""
        results = nw.from_dict(columns, backend=self._eager_backend)
        numbers = [name for name, values in columns.items() if not any(isinstance(value, bool) for value in values)]
        return self._like_the_rows(results.with_columns(nw.col(*numbers).cast(nw.Float64)), ())

    @property
    def _eager_backend(self) -> Any:
        return self._rows.implementation

    def _like_the_rows(self, results: nw.DataFrame[Any], keep: Iterable[str]) -> Any:
        if self._rows.implementation.is_pandas_like():
            native = results.to_native()
            native.index = self._rows.to_native().index
            results = nw.from_native(native, eager_only=True)
        if kept := [name for name in keep if name in self._rows.columns]:
            results = results.with_columns(self._rows.get_column(name) for name in kept)
        if not self._is_lazy:
            return results if self._is_narwhals else results.to_native()
        lazy = results.lazy(backend=self._backend)
        return lazy if self._is_narwhals else lazy.to_native()


def _has_128_bits(dtype: Any) -> bool:
    """Return True if a type of polars is or contains an integer of 128 bits, which Arrow does not have."""
    inner = [dtype.inner] if hasattr(dtype, "inner") else [field.dtype for field in getattr(dtype, "fields", ())]
    return str(dtype) in ("Int128", "UInt128") or any(map(_has_128_bits, inner))


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
        import pyarrow.ipc
    except ImportError:
        raise ImportError(_NEEDS_PYARROW) from None
    return pa
