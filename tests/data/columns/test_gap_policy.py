"""Gaps leave rows out, or a constant takes their place."""

from typing import Any

import numpy as np
import pytest
from cells import infer, numbers

from app.data.columns.options import ColumnOptions, ReadingOptions
from app.data.columns.schema import Column
from app.errors import InvalidInput

N = 20
Y = numbers(N)
GAPS = [None, *numbers(N - 1)]
WORDS = [None, *(["a", "b"] * N)[: N - 1]]


def read(cells: list[Any], options: ReadingOptions) -> Column:
    return infer({"x": cells, "n": Y, "y": Y}, options=options).schema.features[0]


def of_x(**options: Any) -> ReadingOptions:
    return ReadingOptions(columns={"x": ColumnOptions(**options)})


def test_gaps_leave_rows_out_by_default() -> None:
    assert read(GAPS, ReadingOptions()).missing == "drop"


def test_refusal_applies_to_all_columns() -> None:
    schema = infer({"x": GAPS, "y": Y}, options=ReadingOptions(missing="refuse")).schema

    assert [column.missing for column in schema.numbers] == ["refuse", "refuse"]


def test_indicator_fills_numbers_with_their_mean_in_columns_with_gaps() -> None:
    inferred = infer({"x": GAPS, "n": Y, "y": [None, *Y[1:]]}, options=ReadingOptions(missing="indicator"))

    x, n = inferred.schema.features
    assert (x.missing, n.missing, inferred.schema.targets[0].missing) == ("indicator", "drop", "drop")
    assert x.fill == pytest.approx(np.mean([float(text) for text in numbers(N - 1)]))
    assert inferred.schema.encoded_features == ("x", "x[missing]", "n")
    assert "may be biased" in inferred.warnings[-1]


def test_indicator_of_dates_and_booleans_has_their_mean() -> None:
    options = ReadingOptions(missing="indicator")

    assert read([None, None, *["2020-01-01", "2020-01-03"] * (N // 2 - 1)], options).fill == 18263
    assert read([None, "yes", *["no"] * (N - 2)], options).fill == pytest.approx(1 / (N - 1))


def test_indicator_makes_the_gap_a_level_of_a_category() -> None:
    column = read(WORDS, ReadingOptions(missing="indicator"))

    assert column.encoded_names == ("x[b]", "x[missing]")
    assert column.fill is None


def test_level_called_missing_does_not_fit_the_indicator() -> None:
    with pytest.raises(InvalidInput, match="`na=missing`"):
        read([None, *["missing", "b"] * N][:N], ReadingOptions(missing="indicator"))


def test_indicator_of_a_single_column_is_added_without_gaps_too() -> None:
    assert read(Y, of_x(missing="indicator")).encoded_names == ("x", "x[missing]")


def test_column_of_gaps_is_filled_with_zero() -> None:
    assert read([None] * N, ReadingOptions(missing="indicator")).fill == 0


@pytest.mark.parametrize(
    ("cells", "fill", "expected"),
    [
        (GAPS, 7.0, 7.0),
        (GAPS, "7", 7.0),
        (WORDS, "b", "b"),
        (["yes", None] * (N // 2), "no", 0.0),
        (["2020-01-01", None] * (N // 2), "1970-01-11", 10.0),
    ],
)
def test_constant_takes_the_place_of_gaps(cells: list[Any], fill: float | str, expected: float | str) -> None:
    column = read(cells, of_x(fill=fill))

    assert (column.missing, column.fill) == ("fill", expected)


def test_constant_of_a_category_is_a_level() -> None:
    assert read(WORDS, of_x(fill="c")).levels == ("a", "b", "c")
    assert read(["b", *WORDS[1:]], of_x(fill="b")).fill == "b"


def test_constant_that_would_be_a_level_without_rows_is_refused_with_the_levels() -> None:
    with pytest.raises(InvalidInput, match="no row would have the level that `fill` gives") as refused:
        read(["b", *WORDS[1:]], of_x(fill="c"))
    assert '"c"' not in refused.value.message  # because it is logged
    assert 'Received "c". Give one of its levels: "a", "b"' in refused.value.details[0].message


@pytest.mark.parametrize("fill", ["seven", "NA"])
def test_constant_of_another_kind_is_refused(fill: str) -> None:
    with pytest.raises(InvalidInput, match="is not a number"):
        read(GAPS, of_x(fill=fill))


def test_fill_without_a_constant_names_the_column_with_gaps() -> None:
    with pytest.raises(InvalidInput, match='"x" has 1 gaps and no constant'):
        read(GAPS, ReadingOptions(missing="fill", columns={"n": ColumnOptions(fill=1.0)}))


def test_gaps_of_targets_are_never_filled() -> None:
    options = ReadingOptions(columns={"y": ColumnOptions(fill=1.0)})

    with pytest.raises(InvalidInput, match="a target or weight, cannot be filled"):
        infer({"x": GAPS, "y": Y}, options=options)
