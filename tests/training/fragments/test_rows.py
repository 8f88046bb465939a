"""A fit to fragments is that of one pass: coefficients, folds, counts, gaps and the first error."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from app.data.columns.schema import Column, TableSchema
from app.data.formats import BY_NAME
from app.errors import InvalidInput
from app.regression.fit import FitResult, fit_model
from app.regression.folds import FoldOptions
from app.regression.solvers import Exact
from app.training.dataset import JobRows
from app.training.fragments.executors import Serial
from app.training.fragments.rows import FragmentedRows
from app.training.fragments.split import LocalFile
from app.training.request import TrainingRequest

FEATURES = ("a", "b", "word")
LEVELS = ("", "p", 'q "quoted"', "r\nnext line")


def request(format_name: str, **options: Any) -> TrainingRequest:
    return TrainingRequest(
        model="m",
        upload="u",
        format=format_name,
        features=FEATURES,
        targets=("y",),
        solver=Exact(),
        promote="never",
        fingerprint="",
        weight_kind="precision",
        weight="w",
        **options,
    )


SCHEMA = TableSchema(
    (Column("a"), Column("b", missing="drop"), Column("word", kind="category", levels=LEVELS[1:], missing="drop")),
    (Column("y"),),
    Column("w"),
)


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Draw rows with gaps, weights of zero, and words with quotes and line breaks."""
    rows = draw(st.integers(12, 60))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    a, b = random.normal(size=rows) * 10.0 ** random.integers(-3, 6), random.normal(size=rows)
    gaps = random.random(rows) < draw(st.sampled_from([0.0, 0.2]))
    words = random.choice(LEVELS if draw(st.booleans()) else LEVELS[1:], rows)
    weights = random.choice([1.0, 2.5] if draw(st.booleans()) else [0.0, 1.0, 0.5], rows)
    return pa.table(
        {
            "a": a,
            "b": pa.array(b, mask=gaps),
            "word": pa.array([word or None for word in words]),
            "y": a + 3 * np.nan_to_num(b) + random.normal(size=rows),
            "w": weights,
        }
    )


def write(table: pa.Table, path: Path, format_name: str, part: int) -> None:
    """Write a table whose row groups or batches have `part` rows."""
    if format_name == "parquet":
        pa.parquet.write_table(table, path, row_group_size=part)
    elif format_name == "arrow":
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=part)
    else:
        pa.csv.write_csv(table, path)


def rows_of(paths: Sequence[Path], format_name: str, *, size: int = 1, **options: Any) -> FragmentedRows:
    files = [LocalFile(str(path), path.name if len(paths) > 1 else "") for path in paths]
    return FragmentedRows(files, request(format_name, **options), SCHEMA, executor=Serial(), size=size)


def one_pass(path: Path, format_name: str, **options: Any) -> JobRows:
    return JobRows(path, request(format_name, **options), SCHEMA, {}, 1)


def fit(rows: JobRows, folds: FoldOptions | None) -> FitResult | str:
    """Return the fit, or the message of its error."""
    try:
        return fit_model(rows, Exact(), folds=folds, reread=False)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def assert_equal_fits(found: FitResult | str, expected: FitResult | str) -> None:
    if isinstance(found, str) or isinstance(expected, str):
        assert found == expected
        return
    exact = expected.model
    # The gram matrices are compared, because they do not depend on the shift.
    scale = np.abs(exact.statistics.raw_factor).max()
    for part, whole in [
        (found.model.statistics, exact.statistics),
        *((found.summary.folds[fold], expected.summary.folds[fold]) for fold in expected.summary.folds),
    ]:
        assert part.rows == whole.rows
        assert_allclose(
            part.raw_factor.T @ part.raw_factor, whole.raw_factor.T @ whole.raw_factor, atol=1e-12 * scale**2
        )
        assert_array_equal(part.minimum, whole.minimum)
        assert_array_equal(part.maximum, whole.maximum)
        assert (part.indicator_rows is None) == (whole.indicator_rows is None)
        if part.indicator_rows is not None and whole.indicator_rows is not None:
            assert_array_equal(part.indicator_rows, whole.indicator_rows)
    assert found.summary.folds.keys() == expected.summary.folds.keys()
    tolerance = 1e-13 * max(expected.optimum.design.condition_number, 1) * np.abs(exact.coef).max()
    assert_allclose(found.model.coef, exact.coef, atol=10 * tolerance)


@pytest.mark.parametrize("format_name", ["csv", "parquet", "arrow"])
@settings(max_examples=15, deadline=None)
@given(table=tables(), part=st.integers(1, 40), files=st.integers(1, 3), folds=st.sampled_from([None, 2, 5]))
def test_fragments_of_files_give_the_fit_of_one_pass(
    tmp_path_factory: pytest.TempPathFactory,
    format_name: str,
    table: pa.Table,
    part: int,
    files: int,
    folds: int | None,
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    whole = folder / "whole"
    write(table, whole, format_name, len(table))
    paths = []
    for number in range(files):
        start, end = len(table) * number // files, len(table) * (number + 1) // files
        paths.append(folder / f"part-{number}")
        write(table.slice(start, end - start), paths[-1], format_name, part)
    options = None if folds is None else FoldOptions(folds, seed=3)
    found, expected = (
        rows_of(paths, format_name, size=part * 20 if format_name == "csv" else 1),
        one_pass(whole, format_name),
    )
    assert_equal_fits(fit(found, options), fit(expected, options))
    for name in ("read", "complete", "dropped", "zero_weight_rows", "gaps_by_column"):
        assert getattr(found, name) == getattr(expected, name), name
    assert found.gaps.kept_without(["b"]) == expected.gaps.kept_without(["b"])
    second = np.vstack([batch.x for batch in found.batches()])
    assert_array_equal(second, np.vstack([batch.x for batch in expected.batches()]))
