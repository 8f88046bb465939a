import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from app.data.formats.json import MAX_CHUNK_VALUES, to_objects
from app.data.json_faults import MAX_DETAILS, are_objects, escaped
from app.data.json_rows import as_rows, has_more_brackets, is_json, kept_columns, to_column, to_matrix, without_kept
from app.errors import FieldError, InvalidInput

NAMES = ("temp", "rainfall", "humidity")
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[float]]]:
    names = draw(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=4, unique=True))
    row = st.lists(NUMBERS, min_size=len(names), max_size=len(names))
    return names, draw(st.lists(row, min_size=1, max_size=5))


def refusal(rows: list[Any], names: tuple[str, ...] = NAMES) -> InvalidInput:
    with pytest.raises(InvalidInput) as refused:
        to_matrix(rows, names, "/instances")
    return refused.value


def places(rows: list[Any], names: tuple[str, ...] = NAMES) -> list[str | None]:
    return [detail.pointer for detail in refusal(rows, names).details]


@settings(max_examples=80)
@given(tables())
def test_arrays_become_a_matrix_to_the_last_bit(table: tuple[list[str], list[list[float]]]) -> None:
    names, rows = table
    found = to_matrix(json.loads(json.dumps(rows)), names, "/instances")
    assert_array_equal(found, np.array([[float(value) for value in row] for row in rows]), strict=True)


@settings(max_examples=80)
@given(tables(), st.data())
def test_objects_with_their_keys_in_any_order_are_the_same_rows(
    table: tuple[list[str], list[list[float]]], data: st.DataObject
) -> None:
    names, rows = table
    orders = st.permutations(range(len(names)))
    objects = [{names[index]: row[index] for index in data.draw(orders)} for row in rows]
    assert_array_equal(to_matrix(objects, names, "/instances"), to_matrix(rows, names, "/instances"), strict=True)


def test_the_first_row_decides_whether_all_are_objects() -> None:
    assert are_objects([{"temp": 1}, [1]])
    assert not are_objects([[1], {"temp": 1}])
    assert places([[1, 2, 3], {"temp": 1, "rainfall": 2, "humidity": 3}]) == ["/instances/1"]
    assert places([{"temp": 1, "rainfall": 2, "humidity": 3}, [1, 2, 3]]) == ["/instances/1"]


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (True, "a boolean"),
        (False, "a boolean"),
        ("1", "a string"),
        (None, "null"),
        ([1], "an array"),
        ({}, "an object"),
    ],
)
def test_only_numbers_are_numbers(value: Any, what: str) -> None:
    remedy = {True: "Send 1 or 0.", False: "Send 1 or 0.", "1": "Send it without quotes."}
    expected = f"Expected a number, found {what}."
    if value is None:
        expected += (
            " Send a number, or leave the row out. A training leaves it out with `missing`: `drop`. A prediction is "
            "null with `missing`: `null`."
        )
    elif not isinstance(value, list | dict):
        expected += f" {remedy[value]}"
    assert refusal([[1, 2, 3], [1, value, 3]]).details == (FieldError(expected, pointer="/instances/1/1"),)
    objects = [{"temp": 1, "rainfall": value, "humidity": 3}]
    assert refusal(objects).details == (FieldError(expected, pointer="/instances/0/rainfall"),)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 10**309, -(10**400)])
def test_numbers_that_64_bits_cannot_hold_are_refused(value: float) -> None:
    expected = "The number is not finite, or too large for 64 bits. Expected a finite number."
    assert refusal([[1, 2, value]]).details == (FieldError(expected, pointer="/instances/0/2"),)
    objects = [{"temp": value, "rainfall": 2, "humidity": 3}]
    assert refusal(objects).details == (FieldError(expected, pointer="/instances/0/temp"),)


@pytest.mark.parametrize("row", [[1, 2], [1, 2, 3, 4], []])
def test_an_array_of_another_length_is_refused_with_the_expected_names(row: list[int]) -> None:
    expected = f"Expected 3 values (temp, rainfall, humidity), found {len(row)}. Send as many in each row."
    assert refusal([[1, 2, 3], row]).details == (FieldError(expected, pointer="/instances/1"),)
    assert refusal([row, row]).details == (FieldError(f"{expected} (2 times)", pointer="/instances/0"),)


def test_missing_names_are_listed_one_by_one() -> None:
    assert refusal([{"rainfall": 1}]).details == (
        FieldError('"temp" is missing. Add it.', pointer="/instances/0"),
        FieldError('"humidity" is missing. Add it.', pointer="/instances/0"),
    )


def test_unknown_names_are_refused_each_with_its_first_place() -> None:
    rows = [{"temp": 1, "rainfall": 2, "humidity": 3, "first": 4, "a\u200bb": 5}] * 2
    assert refusal(rows).details == (
        FieldError('"first" is unknown. Expected temp, rainfall, humidity. (2 times)', pointer="/instances/0/first"),
        FieldError(
            '"a\\u200bb" is unknown. Expected temp, rainfall, humidity. The name has the invisible character U+200B '
            "(zero width space) at position 2. (2 times)",
            pointer="/instances/0",
        ),
    )


def test_a_name_in_place_of_a_missing_one_is_found_however_it_differs() -> None:
    for other, hint in [
        ("rainfal", '"rainfal" is similar. Rename it if it is meant.'),
        ("Rainfall", '"Rainfall" differs in capitals or spaces. Use the same spelling.'),
        (" rainfall", '" rainfall" has that name with spaces around it. Remove the spaces.'),
        ("rain\u00adfall", "the invisible character U+00AD (soft hyphen) at position 5. Remove it."),
    ]:
        (missing, unknown) = refusal([{"temp": 1, other: 2, "humidity": 3}]).details
        assert missing.message.startswith('"rainfall" is missing. ')
        assert missing.message.endswith(hint)
        assert "is unknown" in unknown.message


def test_an_unknown_name_is_found_behind_any_number_of_others() -> None:
    row = {"temp": 1, "rainfall": 2, "humidity": 3} | {f"column {index}": index for index in range(1000)}
    assert places([row]) == [f"/instances/0/column {index}" for index in range(20)]


@pytest.mark.parametrize(
    ("row", "what"), [(5, "a number"), (2.5, "a number"), ("abc", "a string"), (None, "null"), (True, "a boolean")]
)
def test_a_row_that_is_neither_object_nor_array_is_refused(row: Any, what: str) -> None:
    expected = (FieldError(f"Expected an object or an array, found {what}.", pointer="/instances/0"),)
    assert refusal([row]).details == expected
    after = FieldError(expected[0].message, pointer="/instances/1")
    assert refusal([[1, 2, 3], row]).details == (after,)
    assert refusal([{"temp": 1, "rainfall": 2, "humidity": 3}, row]).details == (after,)


def test_a_string_as_long_as_a_row_is_not_a_row() -> None:
    assert places([[1, 2, 3], "123"]) == ["/instances/1"]
    assert places(["123"]) == ["/instances/0"]


def test_every_column_at_fault_is_listed_once_with_its_first_row_and_a_count() -> None:
    error = refusal([[1, 2, 3]] * 5 + [[1, 2, None]] * 40 + [[None, 2, 3], ["x", 2, 3]])
    assert [detail.pointer for detail in error.details] == ["/instances/5/2", "/instances/45/0", "/instances/46/0"]
    assert error.details[0].message.endswith("(40 times)")
    assert error.message.startswith("42 fault(s) in the rows. /instances/5/2: Expected a number, found null.")


def test_at_most_twenty_columns_are_listed_and_a_thousand_faults_are_counted() -> None:
    names = tuple(f"x{index}" for index in range(30))
    error = refusal([[None] * 30] * 100, names)
    assert [detail.pointer for detail in error.details] == [f"/instances/0/{column}" for column in range(MAX_DETAILS)]
    assert error.message.startswith("At least 1000 fault(s)")
    assert error.details[0].message.endswith("(at least 34 times)")


@pytest.mark.parametrize(
    ("given", "names", "rows"),
    [
        ([1, 2.5, 3], NAMES, [[1, 2.5, 3]]),
        ([1, 2.5, 3.1], ("y",), [[1], [2.5], [3.1]]),
        ([7], ("y",), [[7]]),
        ([[1, 2, 3]], NAMES, [[1, 2, 3]]),
        ([{"y": 1}], ("y",), [{"y": 1}]),
    ],
)
def test_a_flat_list_is_one_row_of_several_names_or_many_rows_of_one(
    given: list[Any], names: tuple[str, ...], rows: list[Any]
) -> None:
    found = to_matrix(as_rows(given, names, "/instances"), names, "/instances")
    assert_array_equal(found, to_matrix(rows, names, "/instances"), strict=True)


@pytest.mark.parametrize(
    ("given", "names", "place", "says"),
    [
        ([1, 2], NAMES, "/instances", "Found a flat list of 2 numbers; expected a list of rows, each with 3 values"),
        ([1, 2, 3, 4, 5, 6], NAMES, "/instances", "Found a flat list of 6 numbers"),
        ([1, None, 3], NAMES, "/instances/1", "found null"),
        ([1, "2", 3], NAMES, "/instances/1", "found a string"),
        ([1, float("nan"), 3], NAMES, "/instances/1", "not finite"),
        ([1, 10**400, 3], NAMES, "/instances/1", "too large"),
        ([1, [2], 3], ("y",), "/instances/1", "found an array"),
    ],
)
def test_another_flat_list_is_refused_with_its_place(
    given: list[Any], names: tuple[str, ...], place: str, says: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        as_rows(given, names, "/instances")
    assert refused.value.details[0].pointer == place
    assert says in refused.value.details[0].message


def test_null_in_a_flat_list_is_a_missing_value_if_that_is_allowed() -> None:
    flat = as_rows([1, None, 3], ["y"], "/targets", missing=True)
    assert_array_equal(to_matrix(flat, ["y"], "/targets", missing=True), [[1], [np.nan], [3]])


def test_faults_are_listed_in_the_order_of_the_rows() -> None:
    assert places([[1, None, None], 5, [1, 2], [1, 2, "x"]]) == [
        "/instances/0/1",
        "/instances/0/2",
        "/instances/1",
        "/instances/2",
        "/instances/3/2",
    ]


def test_names_are_escaped_in_pointers() -> None:
    assert escaped("a/b~c/~1") == "a~1b~0c~1~01"
    assert places([{"m/s~": None}], ("m/s~",)) == ["/instances/0/m~1s~0"]


def test_a_list_of_very_many_names_is_cut_short() -> None:
    names = tuple(f"x{index}" for index in range(1000))
    message = refusal([[1]], names).details[0].message
    assert message.startswith("Expected 1000 values (x0, x1, ")
    assert message.endswith("x19, ...), found 1. Send as many in each row.")


def peak_of(refused: Callable[[], object], message: str) -> int:
    """The bytes it takes to refuse something."""
    tracemalloc.start()
    with pytest.raises(InvalidInput, match=message) as error:
        refused()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(error.value.details) <= MAX_DETAILS
    return peak


def test_any_number_of_faults_takes_bounded_memory() -> None:
    names, weights = [f"name {index}" for index in range(1000)], [None] * 100_000
    assert peak_of(lambda: without_kept([0] * 2000, names, "/instances"), "columns to keep") < 100_000
    assert peak_of(lambda: to_column(weights, "/sample_weights"), "Not all") < 100_000


def test_kept_objects_are_refused_before_a_column_is_made_for_each_of_their_names() -> None:
    kept = kept_columns([{"kept": 1, "other": None}, {"kept": None, "other": True}], ["kept", "other"])
    assert kept is not None
    assert kept.to_pydict() == {"kept": [1, None], "other": [None, True]}
    rows = [{"kept": {f"{row} {index}": 1 for index in range(100)}} for row in range(1000)]
    assert peak_of(lambda: kept_columns(rows, ["kept"]), "numbers, strings, booleans") < 100_000
    assert peak_of(lambda: kept_columns([{"kept": 1}, {"kept": [1]}], ["kept"]), "numbers, strings, booleans") < 100_000


def containers(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, dict | list) + sum(map(containers, inner))


WORDS = st.text(st.sampled_from('[]{}"\\\n,:a'), max_size=4)
DOCUMENTS = st.recursive(
    WORDS | st.none(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3)
)


@settings(max_examples=300)
@given(DOCUMENTS)
def test_brackets_in_strings_are_not_counted(document: Any) -> None:
    body, count = json.dumps(document).encode(), containers(document)
    assert is_json(body)
    assert not has_more_brackets(body, count)
    assert count == 0 or has_more_brackets(body, count - 1)


def test_json_is_recognised_without_decoding_it() -> None:
    assert not any(map(is_json, (b"[" * 100_000, b'{"a":}', b"", b'["')))
    assert not has_more_brackets(b'["' + b"[" * 100_000, 1)


def test_long_tables_become_the_same_objects_as_short_ones() -> None:
    values = np.random.default_rng(0).normal(size=(MAX_CHUNK_VALUES // 2 + 1, 3))
    assert json.loads(to_objects(values, NAMES)) == [dict(zip(NAMES, row, strict=True)) for row in values.tolist()]
    wide = np.ones((2, MAX_CHUNK_VALUES))
    assert json.loads(to_objects(wide, [f"{n}" for n in range(MAX_CHUNK_VALUES)]))[1]["7"] == 1
