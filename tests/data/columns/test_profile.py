"""The profile of a table does not depend on how its rows were divided into batches, or on the order of passes."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from cells import infer, numbers, reader
from hypothesis import given, settings
from hypothesis import strategies as st

from app.data.batch import Columns
from app.data.columns import profile, text_profile
from app.data.columns.kinds import KindFault, decide
from app.data.columns.profile import ColumnProfile, TableProfile, profile_table
from app.data.columns.schema import Column

TEXTS = st.sampled_from(
    ["1", "2.5", "-3", "1,234", "NA", "", " ", "-", "a", "b", "yes", "no", "2020-01-31", "03/04/2020"]
)
WORDS = st.sampled_from([None, "x" * 300, *(f"word {place}" for place in range(12))])


def profiled(cells: list[Any] | pa.Array, batch_rows: int = 1 << 20, column: Column | None = None) -> ColumnProfile:
    columns = {"x": ColumnProfile(column or Column("x"), is_open=column is None)}
    return profile_table(reader({"x": cells}, batch_rows)(Columns((), ["x"])), columns).columns["x"]


def facts(cells: pa.Array, batch_rows: int) -> Any:
    """Return everything that decisions are made from."""
    found = profiled(cells, batch_rows)
    texts = found.texts
    tallies = [texts.number, texts.thousands, texts.boolean, *texts.dates.values()]
    tried = [(tally.faults == 0, tally.first) for tally in tallies if tally.is_tried]
    decision: Any
    try:
        decided = decide(found, untyped=True)
        decision = (decided.column, decided.count, decided.gaps, decided.counts_rows)
    except KindFault as fault:
        decision = (fault.message, fault.row)
    levels = [*texts.levels] if texts.is_full else texts.levels
    return levels, texts.count, texts.is_full, texts.is_long, texts.distinct, tried, decision


@settings(max_examples=40)
@given(cells=st.lists(st.one_of(TEXTS, WORDS), min_size=1, max_size=60), batch_rows=st.integers(1, 20))
def test_profile_does_not_depend_on_the_boundaries_of_batches(cells: list[str | None], batch_rows: int) -> None:
    array = pa.array(cells, pa.string())

    assert facts(array, batch_rows) == facts(array, len(cells))


@settings(max_examples=40)
@given(
    cells=st.lists(st.one_of(TEXTS, WORDS), min_size=1, max_size=120),
    batch_rows=st.integers(1, 20),
    limits=st.tuples(st.integers(1, 8), st.integers(1, 30)),
)
def test_profile_does_not_depend_on_the_boundaries_of_batches_with_many_levels(
    cells: list[str | None], batch_rows: int, limits: tuple[int, int]
) -> None:
    array = pa.array(cells, pa.string())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_profile, "MAX_LEVELS", limits[0])
        patch.setattr(text_profile, "MAX_COMPARED", 200)
        patch.setattr(text_profile, "PATIENCE_ROWS", 2 * limits[1])
        patch.setattr(profile, "BLOCK_ROWS", limits[1])

        assert facts(array, batch_rows) == facts(array, len(cells))


@settings(max_examples=40)
@given(
    cells=st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6), st.integers(0, 5).map(float)), min_size=1, max_size=40)
)
def test_numbers_have_a_range_and_a_mean_in_any_batches(cells: list[float | None]) -> None:
    array = pa.array(cells, pa.float64())
    present = [cell for cell in cells if cell is not None]

    for decided in (decide(profiled(array, size), untyped=False) for size in (3, 100)):
        assert decided.gaps == len(cells) - len(present)
        assert decided.range == ((min(present), max(present)) if present else None)
        assert decided.mean == pytest.approx(np.mean(present) if present else 0, rel=1e-12, abs=1e-9)


def test_text_and_typed_numbers_of_one_column_have_the_same_profile() -> None:
    texts = numbers(200)
    of_texts = decide(profiled(texts), untyped=True)
    of_floats = decide(profiled(pa.array(texts).cast(pa.float64())), untyped=True)

    assert of_texts.column == of_floats.column
    assert of_texts.range == of_floats.range
    assert of_texts.mean == pytest.approx(of_floats.mean, rel=1e-13)


def test_levels_are_counted_without_unused_codes_of_a_dictionary() -> None:
    cells = pa.DictionaryArray.from_arrays(pa.array([2, 0, 2, None], pa.uint8()), pa.array(["a", "unused", "c"]))

    found = profiled(cells)

    assert found.texts.levels == {"c": 2, "a": 1}
    assert found.is_dictionary


def test_dictionary_with_a_null_in_it_has_gaps() -> None:
    cells = pa.DictionaryArray.from_arrays(pa.array([0, 1, 1]), pa.array(["a", None]))

    assert profiled(cells).texts.levels == {"a": 1}


@pytest.mark.parametrize("type_", [pa.large_string(), pa.string(), pa.string_view()])
def test_text_of_any_type_has_levels(type_: pa.DataType) -> None:
    assert profiled(pa.array(["b", "a", "b", "", None], type_)).texts.levels == {"b": 2, "a": 1}


def test_levels_of_a_known_category_are_texts_of_any_type() -> None:
    category = Column("x", "category", na=("9",))

    assert profiled(pa.array([1, 2, 9, 1]), column=category).texts.levels == {"1": 2, "2": 1}
    assert profiled(pa.array([1.0, 2.5]), column=category).texts.levels == {"1": 1, "2.5": 1}
    assert profiled(pa.array([True, False]), column=category).texts.levels == {"true": 1, "false": 1}


def test_number_of_levels_stops_at_2000() -> None:
    found = profiled([f"level {row % 3000}" for row in range(9_000)])

    assert found.texts.is_full
    assert len(found.texts.levels) == text_profile.MAX_LEVELS
    assert found.texts.distinct == 3_000
    assert found.texts.count == 9_000


def test_more_than_2000_different_numbers_stay_numbers() -> None:
    assert decide(profiled([str(row / 7) for row in range(5_000)]), untyped=True).column.kind == "number"


def test_word_after_many_numbers_is_found_with_its_row() -> None:
    cells = [*(str(row / 7) for row in range(5_000)), "word"]

    with pytest.raises(KindFault) as fault:
        decide(profiled(cells, 512), untyped=True)

    assert fault.value.message.startswith("1 of 5,001 values cannot be read as finite numbers")
    assert fault.value.row == 5_000


def test_many_different_times_are_dates() -> None:
    start = np.datetime64("2020-01-01T00:00:00")
    cells = [str(start + 7 * row) for row in range(5_000)]

    assert decide(profiled(cells, 512), untyped=True).column.kind == "date"


def test_a_number_that_recurs_far_outside_the_others_is_found() -> None:
    def outlier(values: list[float]) -> float | None:
        found = profiled(pa.array(values)).typed["number"].numbers.outlier
        return None if found is None else abs(found.value)

    assert outlier([1.0, 2, 3, -999]) == 999
    assert outlier([1.0, 2, 3, 99, 99]) == 99
    assert outlier([1.0, 2, 3, 50, 50, 50]) == 50
    assert outlier([1.0, 2, 3, 50]) is None
    assert outlier([0.0, 1, 0, 1]) is None
    assert outlier([5.0, 5]) is None


def test_table_profile_counts_rows_and_calls_step_for_each_batch() -> None:
    steps: list[None] = []

    table: TableProfile = profile_table(
        reader({"x": ["a"] * 10}, 3)(Columns((), ["x"])),
        {"x": ColumnProfile(Column("x"))},
        step=lambda: steps.append(None),
    )

    assert table.rows == 10
    assert len(steps) == 4


def test_profile_is_part_of_the_answer() -> None:
    inferred = infer({"x": ["1", "2", None, "4"], "y": numbers(4)})

    assert inferred.profile.rows == 4
    assert not inferred.is_guess
