"""The first pass reads only as many rows as it needs, and once more if a later row contradicts the first ones."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from cells import Reader, numbers, reader

from app.data.batch import CellBatch, Columns, row_error
from app.data.columns import plan
from app.data.columns.options import ColumnOptions, ReadingOptions
from app.data.columns.plan import Roles, contradicts, plan_schema
from app.errors import InvalidInput

N = 400
ROLES = Roles(("x", "g", "y"), ("y",))
OPTIONS = ReadingOptions()


@pytest.fixture(autouse=True)
def short_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SAMPLE_BYTES", 2_000)


class Log:
    """A reader that records what was read."""

    def __init__(self, read: Reader) -> None:
        self.passes: list[Columns] = []
        self.batches = 0
        self._read = read

    def __call__(self, columns: Columns) -> Iterator[CellBatch]:
        self.passes.append(columns)
        for batch in self._read(columns):
            self.batches += 1
            yield batch


def test_plain_numbers_are_read_only_at_the_beginning() -> None:
    log = Log(reader({"x": numbers(N), "g": numbers(N), "y": numbers(N)}, 50))

    inferred = plan_schema(log, ROLES, OPTIONS, untyped=True)

    assert inferred.is_guess
    assert inferred.schema.is_plain
    assert log.batches < N // 50


def test_numbers_are_read_as_numbers_next_to_words() -> None:
    log = Log(reader({"x": numbers(N), "g": ["a", "b"] * (N // 2), "y": numbers(N)}, 50))

    inferred = plan_schema(log, ROLES, OPTIONS, untyped=True)

    assert not inferred.is_guess
    assert inferred.profile.rows == N
    assert [([*columns.numbers], [*columns.keep]) for columns in log.passes] == [
        (["x", "g", "y"], []),
        ([], ["x", "g", "y"]),
        (["x", "y"], ["g"]),
    ]


def test_later_word_restarts_the_reading_once_with_all_columns_as_text() -> None:
    log = Log(reader({"x": [*numbers(N - 1), "?"], "g": ["a", "b"] * (N // 2), "y": numbers(N)}, 50))

    inferred = plan_schema(log, ROLES, OPTIONS, untyped=True)

    assert [len(columns.numbers) for columns in log.passes] == [3, 0, 2, 0]
    assert inferred.schema.features[0].kind == "number"


def test_other_faults_are_passed_on() -> None:
    def read(columns: Columns) -> Iterator[CellBatch]:
        yield from reader({"x": numbers(N), "g": ["a", "b"] * (N // 2), "y": numbers(N)}, 50)(columns)
        raise row_error("Expected 3 values, found 4.", row=9)

    with pytest.raises(InvalidInput, match="found 4"):
        plan_schema(read, ROLES, OPTIONS, untyped=True)


def test_guess_that_a_later_row_contradicts_is_replaced_by_a_plan_from_all_rows() -> None:
    read = reader({"x": [*numbers(N - 1), "word"], "g": numbers(N), "y": numbers(N)}, 50)
    guess = plan_schema(read, ROLES, OPTIONS, untyped=True)

    assert contradicts(row_error("The value is not a number.", row=401, column="x"), guess)
    assert not contradicts(row_error("Expected 3 values, found 4.", row=9), guess)
    assert not contradicts(InvalidInput("No rows."), guess)
    with pytest.raises(InvalidInput, match="1 of 400 values cannot be read as finite numbers"):
        plan_schema(read, ROLES, OPTIONS, untyped=True, certain=True)


def test_short_table_is_read_once() -> None:
    log = Log(reader({"x": ["1", "2"], "g": ["a", "b"], "y": ["1", "2"]}))

    assert not plan_schema(
        log, ROLES, ReadingOptions(columns={"g": ColumnOptions(kind="category")}), untyped=True
    ).is_guess
    assert len(log.passes) == 1


def test_table_without_rows_has_columns_of_numbers() -> None:
    inferred = plan_schema(lambda _: iter(()), ROLES, OPTIONS, untyped=True)

    assert inferred.schema.is_plain
    assert inferred.schema.encoded_features == ("x", "g")


def test_columns_with_options_that_the_format_does_not_know_are_read_as_text() -> None:
    log = Log(reader({"x": numbers(N), "g": ["1", "-999"] * (N // 2), "y": numbers(N)}, 50))
    options = ReadingOptions(columns={"g": ColumnOptions(na=("-999",))})

    inferred = plan_schema(log, ROLES, options, untyped=True)

    assert log.passes[-1].keep == ["g"]
    assert inferred.schema.features[1].na == ("-999",)


def test_levels_that_occur_only_in_incomplete_rows_are_left_out_with_a_warning() -> None:
    g = ["a", "b", "c", "rare"] * 3
    x = [None if level in ("rare", "a") else str(place) for place, level in enumerate(g)]
    inferred = plan_schema(reader({"x": x, "g": g, "y": numbers(12)}, 5), ROLES, OPTIONS, untyped=True)

    assert inferred.schema.features[1].levels == ("b", "c")
    assert "because all rows with them have gaps" in inferred.warnings[-1]


def test_levels_stay_if_no_row_is_complete_so_that_the_coefficients_are_counted() -> None:
    columns: dict[str, Any] = {"x": [None] * 12, "g": ["a", "b", "c"] * 4, "y": numbers(12)}

    assert plan_schema(reader(columns), ROLES, OPTIONS, untyped=True).schema.features[1].levels == ("a", "b", "c")


def test_levels_of_rows_with_filled_gaps_stay() -> None:
    g = ["a", "b", "c", "rare"] * 3
    x = [None if level == "rare" else str(place) for place, level in enumerate(g)]
    options = ReadingOptions(missing="indicator")

    inferred = plan_schema(reader({"x": x, "g": g, "y": numbers(12)}, 5), ROLES, options, untyped=True)

    assert inferred.schema.features[1].levels == ("a", "b", "c", "rare")


def test_gaps_of_a_category_with_a_single_level_leave_rows_out_too() -> None:
    columns: dict[str, list[Any]] = {
        "x": ["only", None] * 6,
        "g": ["a", "b", "c", "b"] * 3,
        "n": numbers(12),
        "y": numbers(12),
    }

    schema = plan_schema(reader(columns), Roles(tuple(columns), ("y",)), OPTIONS, untyped=True).schema

    assert [column.levels for column in schema.features] == [("only",), ("a", "c"), ()]


def test_reference_without_a_complete_row_is_refused() -> None:
    options = ReadingOptions(columns={"g": ColumnOptions(reference="a")})
    x = [None, "1", "2"] * 3

    with pytest.raises(InvalidInput, match="occurs only in rows that are left out"):
        plan_schema(reader({"x": x, "g": ["a", "b", "c"] * 3, "y": numbers(9)}), ROLES, options, untyped=True)


def test_later_row_that_does_not_fit_the_current_version_is_refused_with_the_way_out() -> None:
    words = {"g": ["a", "b"] * (N // 2), "y": numbers(N)}
    current = plan_schema(reader({"x": numbers(N), **words}, 50), ROLES, OPTIONS, untyped=True).schema

    with pytest.raises(InvalidInput, match=r'Row 400, column "x": 1 of 400 values .* `schema=infer`'):
        plan_schema(
            reader({"x": [*numbers(N - 1), "word"], **words}, 50), ROLES, OPTIONS, untyped=True, current=current
        )


def test_numbers_of_a_current_version_are_read_only_at_the_beginning() -> None:
    columns = {"x": numbers(N), "g": numbers(N), "y": numbers(N)}
    current = plan_schema(reader(columns, 50), ROLES, OPTIONS, untyped=True).schema
    log = Log(reader(columns, 50))

    inferred = plan_schema(log, ROLES, OPTIONS, untyped=True, current=current, mode="update")

    assert inferred.is_guess
    assert inferred.schema == replace(current, rows=inferred.profile.rows)
    assert log.batches < N // 50
