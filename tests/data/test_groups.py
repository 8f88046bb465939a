"""Groups of rows that share a fold."""

import datetime as dt
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from number_rows import number_rows
from numpy.testing import assert_array_equal
from tables import written

from app.data.groups import MISSING, Groups, canonical, split_groups
from app.data.training_rows import write_matrix
from app.errors import InvalidInput

GROUPS = Groups("site", 7, 3)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([7, 7.0, "7", "7.0", "+7", "007", "7e0"], "7"),
        ([0, 0.0, -0.0, "-0", "00"], "0"),
        ([-12, "-12.0", -12.0], "-12"),
        ([0.1, "0.1", ".1", "0.10", "1e-1"], "0.1"),
        ([2**53 + 1, "9007199254740993"], "9007199254740993"),
        ([2.0**60, 2**60, str(2**60)], str(2**60)),
        ([True], "true"),
        (["North"], "North"),
        ([" 7"], " 7"),
        (["٣"], "٣"),
        ([None, "", float("nan")], None),
    ],
)
def test_equal_values_have_one_text(values: Sequence[Any], text: str | None) -> None:
    assert {canonical(value) for value in values} == {text}


def table(groups: Any) -> pa.Table:
    return pa.table({"x": np.arange(float(len(groups))), "y": np.ones(len(groups)), "site": groups})


def stored(folder: Path, content: bytes) -> Path:
    path = folder / "rows"
    path.write_bytes(content)
    return path


def folds_in(path: Path, form: str, features: Sequence[str] = ("x",)) -> list[int]:
    rows = number_rows(path, form, features, ["y"], groups=GROUPS)
    found: list[int] = []
    for batch in rows.batches():
        assert batch.fold is not None
        assert batch.x.shape[1] == len(features)
        found += batch.fold.tolist()
    return found


FORMS: list[str] = ["csv", "ndjson", "arrow", "parquet"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "groups",
    [
        [1, 2, 3, 1, 40, 2],
        [1.0, 2.5, 3.0, 1.0, 40.0, 2.5],
        ["a", "b", "1", "a", "ä", "b"],
        [True, False, True, True, False, False],
    ],
)
def test_a_group_has_the_same_fold_in_every_format(tmp_path: Path, form: str, groups: list[Any]) -> None:
    expected = GROUPS.of_values(groups).tolist()

    assert folds_in(stored(tmp_path, written(table(groups), form)), form) == expected
    assert expected[0] == expected[3]


@pytest.mark.parametrize("form", FORMS)
def test_a_group_may_be_a_feature_too(tmp_path: Path, form: str) -> None:
    path = stored(tmp_path, written(table([1.5, 2.0, 3.0, 1.5]), form))

    assert folds_in(path, form, ["x", "site"]) == GROUPS.of_values([1.5, 2, 3, 1.5]).tolist()


@pytest.mark.parametrize("form", FORMS)
def test_a_missing_group_is_refused_with_its_place_or_its_row_dropped(tmp_path: Path, form: str) -> None:
    path = stored(tmp_path, written(table(["a", "b", None, "a"]), form))

    with pytest.raises(InvalidInput, match="group is missing") as refused:
        folds_in(path, form)
    assert [(detail.row, detail.column) for detail in refused.value.details] == [(4 if form == "csv" else 3, "site")]

    rows = number_rows(path, form, ["x"], ["y"], groups=GROUPS, drop_missing=True)
    batches = list(rows.batches())
    assert rows.dropped == 1
    assert_array_equal(np.vstack([batch.x for batch in batches])[:, 0], [0, 1, 3])
    folds = [fold for batch in batches if batch.fold is not None for fold in batch.fold.tolist()]
    assert folds == GROUPS.of_values(["a", "b", "a"]).tolist()


def test_dates_are_groups_and_intervals_of_time_are_refused() -> None:
    day = dt.date(2026, 7, 1)

    assert GROUPS.of_column(pa.array([day, None])).tolist() == [*GROUPS.of_values(["2026-07-01"]), MISSING]
    assert GROUPS.of_column(pa.nulls(2)).tolist() == [MISSING, MISSING]
    with pytest.raises(InvalidInput, match="A column of groups holds"):
        GROUPS.of_column(pa.array([{"a": 1}]))


def test_groups_of_json_rows_become_a_column_of_folds(tmp_path: Path) -> None:
    rows = json.loads('[{"x": 1, "site": "a"}, {"site": 7, "x": 2}, {"x": 3, "site": null}]')

    others, folds = split_groups(rows, GROUPS, missing=True)
    assert others == [{"x": 1}, {"x": 2}, {"x": 3}]

    file = io.BytesIO()
    write_matrix(file, np.array([[1.0], [2.0], [3.0]]), np.ones((3, 1)), folds)
    stored_rows = number_rows(
        stored(tmp_path, file.getvalue()), "matrix", ["x"], ["y"], groups=GROUPS, drop_missing=True
    )
    (batch,) = stored_rows.batches()
    assert stored_rows.dropped == 1
    assert batch.fold is not None
    assert batch.fold.tolist() == GROUPS.of_values(["a", "7"]).tolist()


@pytest.mark.parametrize(
    ("row", "says", "place"),
    [
        ({"x": 1}, "group is missing", "/instances/1"),
        ({"x": 1, "site": None}, "group is missing", "/instances/1/site"),
        ({"x": 1, "site": [1]}, "Expected a number, a text or a boolean", "/instances/1/site"),
        ([1, 2], "Expected an object", "/instances/1"),
    ],
)
def test_json_rows_without_a_usable_group_are_refused_with_their_place(row: Any, says: str, place: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        split_groups([{"x": 1, "site": 1}, row], GROUPS, missing=False)

    (detail,) = refused.value.details
    assert says in detail.message
    assert detail.pointer == place
