"""Rows on an exact plane, in fragments of a Parquet file."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from app.data.columns.schema import TableSchema
from app.regression.solvers import Exact
from app.training.fragments.executors import Executor
from app.training.fragments.files import FragmentedFiles
from app.training.fragments.rows import FragmentedRows
from app.training.fragments.split import LocalFile
from app.training.request import TrainingRequest

ROWS = 60_000
PARTS = 6


def write_rows(path: Path, rows: int = ROWS) -> Path:
    x = np.random.default_rng(0).normal(size=(rows, 2))
    table = pa.table({"a": x[:, 0], "b": x[:, 1], "y": x @ [2.0, -1.0] + 3.0})
    pa.parquet.write_table(table, path, row_group_size=rows // PARTS, compression="none")
    return path


def write_damaged(path: Path, rows: Path) -> Path:
    """Write a copy of rows whose row group 3 has a page that cannot be read."""
    content = bytearray(rows.read_bytes())
    column = pyarrow.parquet.ParquetFile(rows).metadata.row_group(3).column(1)
    content[column.data_page_offset : column.data_page_offset + 20] = b"\xff" * 20
    path.write_bytes(content)
    return path


def rows_of(path: Path, executor: Executor, name: str = "", format_name: str = "parquet") -> FragmentedRows:
    request = TrainingRequest(
        model="m",
        upload="u",
        format=format_name,
        features=("a", "b"),
        targets=("y",),
        solver=Exact(),
        promote="never",
        fingerprint="",
        weight_kind="precision",
    )
    schema = TableSchema.of_numbers(("a", "b"), ("y",))
    files = FragmentedFiles([LocalFile(str(path), name)], format_name, executor, size=1)
    return FragmentedRows(files, request, schema)
