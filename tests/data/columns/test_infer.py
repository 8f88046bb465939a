"""The columns of a table become features, are left out, or are refused, with warnings."""

import re

import pytest
from cells import N, Y, column, cycle, fault, infer, numbers

from app.data.columns.limits import check_design
from app.data.columns.options import ColumnOptions, ReadingOptions
from app.data.columns.schema import Column
from app.errors import InvalidInput


@pytest.mark.parametrize("mark", ["-999", "9999"])
def test_value_far_outside_the_others_gets_a_warning(mark: str) -> None:
    (warning,) = infer({"x": [*numbers(N - 3), mark, mark, mark], "y": Y}).warnings

    assert 'all others in "x"' in warning


def test_ordinary_columns_get_no_warning() -> None:
    columns = {"binary": cycle("0", "1"), "count": cycle("0", "1", "2"), "score": cycle("1", "2", "3", "5"), "y": Y}

    assert infer(columns).warnings == ()


@pytest.mark.parametrize("first", [0, 1])
def test_column_that_counts_the_rows_gets_a_warning(first: int) -> None:
    inferred = infer({"x": [str(row) for row in range(first, N + first)], "y": Y})

    assert inferred.schema.encoded_features == ("x",)
    assert 'only count the rows: "x"' in inferred.warnings[0]


@pytest.mark.parametrize(
    ("name", "is_noted"), [("id", True), ("user_id", True), ("PassengerId", True), ("paid", False), ("x", False)]
)
def test_integers_that_all_differ_are_noted_by_their_name(name: str, is_noted: bool) -> None:
    inferred = infer({name: [str(row * 7919 % 1009) for row in range(N)], "y": Y})

    assert inferred.schema.encoded_features == (name,)
    assert any("identify rows" in warning for warning in inferred.warnings) == is_noted


@pytest.mark.parametrize(
    ("cells", "is_identifier"),
    [
        ([f"row {row}" for row in range(N)], True),
        ([f"row {row}" for row in range(N - 1)] + ["row 1"], True),
        ([f"row {row % 20}" for row in range(N)], False),
        ([f"row {row % 21}" for row in range(N)], True),
        ([f"row {row}" for row in range(3)] + [None] * (N - 3), True),
        (cycle("a"), False),
    ],
)
def test_words_that_identify_rows_are_left_out_with_a_warning(cells: list[str | None], is_identifier: bool) -> None:
    inferred = infer({"x": cells, "n": Y, "y": Y})

    assert [column.name for column in inferred.schema.left_out] == ["x"] * is_identifier
    assert any(
        'identifiers of rows, because all or many of their values differ: "x"' in text for text in inferred.warnings
    ) == (is_identifier)


def test_columns_that_the_client_names_are_never_left_out() -> None:
    cells = [f"row {row}" for row in range(N)]

    assert len(column(cells, kinds={"x": "category"}).levels) == N
    assert len(column(cells, features=("x", "n")).levels) == N


def test_more_than_2000_levels_that_repeat_are_refused_with_the_columns() -> None:
    cells = [f"level {row % 2500}" for row in range(10_000)]
    y = numbers(10_000)

    with pytest.raises(InvalidInput) as refused:
        infer({"x": cells, "g": [f"g{row % 7}" for row in range(10_000)], "y": y})

    assert 'Numbers of levels: "x" more than 2,000, "g" 7' in refused.value.message
    half = [f"level {row % 6000}" for row in range(10_000)]
    assert [column.name for column in infer({"x": half, "n": y, "y": y}).schema.left_out] == ["x"]


def test_design_has_at_most_2000_columns_in_all() -> None:
    cells = [f"level {row % 1500}" for row in range(6_000)]

    with pytest.raises(InvalidInput, match=r"2,998 columns; at most 2,000 are possible.*\"a\" 1,500, \"b\" 1,500"):
        infer({"a": cells, "b": cells, "y": numbers(6_000)})


def test_texts_that_are_too_long_for_levels_are_refused_if_they_repeat() -> None:
    assert "256 characters" in fault(cycle("a" * 300, "b"))


def test_target_of_words_fails() -> None:
    with pytest.raises(InvalidInput, match=r'Row 2, column "y": The column holds words, but a target'):
        infer({"x": Y, "y": cycle("a", "b")})


def test_boolean_target_is_a_linear_probability_model() -> None:
    inferred = infer({"x": Y, "y": cycle("yes", "no", "no")})

    assert inferred.schema.targets[0].kind == "boolean"
    assert "linear probability model" in inferred.warnings[0]


def test_all_columns_at_fault_are_reported_together() -> None:
    with pytest.raises(InvalidInput) as refused:
        infer({"a": cycle("1", "2", "x"), "d": cycle("01/02/2020"), "y": Y})

    assert [(detail.row, detail.column) for detail in refused.value.details] == [(2, "d"), (4, "a")]


def test_design_without_a_column_is_refused() -> None:
    assert "single level" in fault(cycle("a"))
    assert "No column is left" in fault([f"row {row}" for row in range(N)])


def test_columns_of_the_design_with_the_same_name_are_refused() -> None:
    with pytest.raises(InvalidInput, match="same name") as refused:
        infer({"x": cycle("a", "b"), "x[b]": Y, "y": Y})
    assert "[b]" not in refused.value.message  # because it is logged
    assert '"x[b]"' in refused.value.details[0].message


def test_a_reference_that_is_no_level_is_refused_without_levels_in_the_message_that_is_logged() -> None:
    with pytest.raises(InvalidInput) as refused:
        infer(
            {"x": cycle("oslo", "rome"), "y": Y},
            options=ReadingOptions(columns={"x": ColumnOptions(reference="paris")}),
        )
    assert not {"oslo", "rome", "paris"} & {*re.findall(r"\w+", refused.value.message)}
    assert 'Received "paris". Its levels: "oslo", "rome".' in refused.value.details[0].message


def test_a_design_of_too_many_columns_without_categories_names_no_levels() -> None:
    columns = [Column(f"x{index}", "number") for index in range(2_001)]
    with pytest.raises(InvalidInput) as refused:
        check_design(columns)
    assert refused.value.message == (
        "The design would have 2,001 columns; at most 2,000 are possible. Leave columns out with `drop`."
    )
