"""A fit to fragments is that of one pass: coefficients, folds, counts, gaps and the first error."""

import re
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

from app.data.batch import FileSet
from app.data.columns.schema import Column, TableSchema
from app.errors import InvalidInput
from app.regression.fit import FitResult, fit_model
from app.regression.folds import FoldOptions
from app.regression.solvers import Exact
from app.training.dataset import JobRows
from app.training.fragments.executors import Serial
from app.training.fragments.files import FragmentedFiles
from app.training.fragments.rows import FragmentedRows
from app.training.fragments.split import LocalFile
from app.training.request import TrainingRequest
from app.training.table import TableReader

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
    fragmented = FragmentedFiles(files, format_name, Serial(), size)
    return FragmentedRows(fragmented, request(format_name, **options), SCHEMA)


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
def test_fragments_of_files_give_the_fit_of_one_pass(  # noqa: PLR0917 - hypothesis gives them
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
    found = rows_of(paths, format_name, size=part * 20 if format_name == "csv" else 1)
    expected = one_pass(whole, format_name)
    assert_equal_fits(fit(found, options), fit(expected, options))
    for name in ("read", "complete", "dropped", "zero_weight_rows", "gaps_by_column"):
        assert getattr(found, name) == getattr(expected, name), name
    assert found.gaps.kept_without(["b"]) == expected.gaps.kept_without(["b"])
    second = np.vstack([batch.x for batch in found.batches()])
    assert_array_equal(second, np.vstack([batch.x for batch in expected.batches()]))


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 39),
    st.integers(0, 39),
    st.integers(1, 300),
    st.sampled_from(["a", "w"]),
    st.sampled_from(["oops", "-1", "1e999"]),
    st.booleans(),
)
def test_the_first_fault_is_that_of_one_pass(  # noqa: PLR0917 - hypothesis gives them
    tmp_path_factory: pytest.TempPathFactory,
    first: int,
    second: int,
    size: int,
    column: str,
    value: str,
    blank: bool,
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    lines = [{"a": f"{row}.5", "b": "1", "word": f'"x, ""{row}"" \n y"', "y": "2", "w": "1"} for row in range(40)]
    lines[first][column] = value
    lines[second]["y"] = "oops"
    text = "\n".join(["a,b,word,y,w", *(",".join(line.values()) for line in lines)])
    path.write_text(text.replace("\n3.5", "\n\n\n3.5") if blank else text)
    found, expected = fit(rows_of([path], "csv", size=size), None), fit(one_pass(path, "csv"), None)
    if isinstance(expected, str) and "columns have values" not in expected:
        assert found == expected
    else:  # how many columns are named depends on the rows that are parsed at a time
        assert isinstance(found, str) == isinstance(expected, str)
        assert str(found).split("row")[-1] == str(expected).split("row")[-1]


def test_a_fault_in_one_of_several_files_has_the_name_of_the_file_and_the_row_in_it(tmp_path: Path) -> None:
    paths = [tmp_path / f"part-{number}.csv" for number in range(3)]
    for path in paths:
        path.write_text("a,b,word,y,w\n" + "1,2,p,3,1\n" * 20)
    paths[1].write_text(paths[1].read_text() + "1,2,p,oops,1\n")
    with pytest.raises(InvalidInput, match=r'^Row 22 of part-1\.csv, column "y"') as refused:
        fit_model(rows_of(paths, "csv"), Exact())
    assert [(detail.file, detail.row) for detail in refused.value.details] == [("part-1.csv", 22)]


@settings(max_examples=15, deadline=None)
@given(table=tables(), part=st.integers(5, 40), certain=st.booleans())
def test_kinds_and_levels_are_those_of_one_pass(
    tmp_path_factory: pytest.TempPathFactory, table: pa.Table, part: int, certain: bool
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    table = table.append_column("day", pa.array([f"2026-01-{row % 28 + 1:02}" for row in range(len(table))]))
    for format_name in ("csv", "arrow"):
        path = folder / f"rows.{format_name}"
        write(table, path, format_name, part)
        given = replace(request(format_name), features=(*FEATURES, "day"))
        local = [LocalFile(str(path), path.name)]
        files = FragmentedFiles(local, format_name, Serial(), part * 20)
        readers = [
            TableReader(given, FileSet(local), {}, certain=certain, fragments=fragments) for fragments in (files, None)
        ]
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("app.data.columns.plan.SAMPLE_BYTES", 1)
            patched.setattr("app.data.formats.csv.SINGLE_BLOCK_BYTES", 200)
            schemas = [reader.read(None) for reader in readers]
        assert schemas[0] == schemas[1]
        assert readers[0].warnings == readers[1].warnings
        assert profile_of(readers[0]) == profile_of(readers[1])
        assert files.is_profiled == (format_name == "csv" or part < len(table))


def profile_of(reader: TableReader) -> str:
    """Return the profile of a table without the sums of numbers, which are rounded."""
    return re.sub(r"total=[-0-9.e]+", "", str(reader.profile))


@pytest.mark.parametrize(
    ("name", "terms", "certified", "tolerance"),
    [
        ("longley", (), (-3482258.63459582, 15.0618722713733), 1e-14),
        (
            "filip",
            ("x", *(f"x^{power}" for power in range(2, 11))),
            (-1467.48961422980, -2772.17959193342),
            2e-8,
        ),  # powers round
    ],
)
def test_a_second_reading_of_the_fragments_restores_the_digits_of_nist(
    name: str, terms: tuple[str, ...], certified: tuple[float, float], tolerance: float
) -> None:
    path = Path(__file__).parents[2] / "regression" / "nist" / f"{name}.csv"
    features = tuple(path.read_text().partition("\n")[0].split(",")[1:])
    given = replace(request("csv", terms=terms), features=features, weight=None)
    schema = TableSchema.of_numbers(features, ("y",))
    rows = FragmentedRows(FragmentedFiles([LocalFile(str(path))], "csv", Serial(), 100), given, schema)
    result = fit_model(rows, Exact())
    assert result.refined
    assert [result.model.intercept[0], result.model.coef[0, 0]] == pytest.approx(certified, rel=tolerance)
    whole = fit_model(JobRows(path, given, schema, {}, 1), Exact())
    assert_allclose(result.model.coef, whole.model.coef, rtol=1e-14)
