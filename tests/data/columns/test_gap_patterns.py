"""Too few complete rows: the message names the columns with gaps, and those without which enough rows would be left."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from app.data.columns import gap_patterns
from app.data.columns.gap_patterns import GapPatterns, explain_too_few

NAMES = ("a", "b", "c", "y")


def counted(gaps: list[list[int]]) -> GapPatterns:
    patterns = GapPatterns(NAMES)
    patterns.add(np.array(gaps, dtype=bool))
    return patterns


@settings(max_examples=40)
@given(gaps=arrays(bool, st.tuples(st.integers(1, 30), st.just(12))), split=st.integers(0, 30))
def test_counts_are_those_of_all_rows_together(gaps: np.ndarray, split: int) -> None:
    names = [f"c{place}" for place in range(12)]
    incomplete = gaps[gaps.any(axis=1)]
    patterns = GapPatterns(names)
    patterns.add(incomplete[:split])
    patterns.add(incomplete[split:])

    assert patterns.rows == len(incomplete)
    assert patterns.by_column == {name: count for name, count in zip(names, gaps.sum(axis=0), strict=True) if count}
    assert patterns.kept_without(names[:6]) == int((~incomplete[:, 6:].any(axis=1)).sum())


def test_columns_with_most_gaps_come_first() -> None:
    assert [*counted([[1, 0, 0, 0], [1, 1, 0, 0]]).by_column.items()] == [("a", 2), ("b", 1)]


def test_message_names_counts_and_the_columns_to_drop() -> None:
    gaps = counted([[1, 0, 0, 0]] * 20 + [[1, 1, 0, 0]] * 5 + [[0, 0, 1, 1]])

    error = explain_too_few(2, gaps, {"a": 3, "b": 1, "c": 1})

    assert error.message == (
        '2 complete rows for 6 coefficients; gaps by column: "a" 25, "b" 5, "c" 1, "y" 1. `drop=a` would keep 22 rows '
        "for 3 coefficients; `missing=indicator` would keep all rows with gaps in features."
    )
    assert [detail.column for detail in error.details] == ["a", "b", "c", "y"]


def test_several_columns_are_dropped_if_one_is_not_enough() -> None:
    gaps = counted([[1, 1, 0, 0]] * 20)

    message = explain_too_few(0, gaps, dict.fromkeys("abc", 1)).message

    assert "`drop=a,b` would keep 20 rows for 2 coefficients" in message


def test_gaps_in_the_target_cannot_be_dropped() -> None:
    message = explain_too_few(0, counted([[0, 0, 0, 1]] * 9 + [[1, 1, 1, 0]] * 9), dict.fromkeys("abc", 1)).message

    assert "drop=" not in message
    assert "Fill the gaps in" in message


def test_rare_combinations_beyond_the_limit_are_left_out_of_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gap_patterns, "MAX_PATTERNS", 1)
    gaps = counted([[1, 0, 0, 0], [1, 0, 0, 0]])
    gaps.add(np.array([[0, 1, 0, 0]], dtype=bool))

    assert gaps.by_column == {"a": 2, "b": 1}
    assert gaps.kept_without(["a", "b"]) == 2
