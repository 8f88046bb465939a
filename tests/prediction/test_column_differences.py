"""Differences of columns between versions: what a version must not have to answer a share of the clients."""

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trained import model_of, version_of

from app.data.columns.schema import Column, Dialect, LeftOut, TableSchema
from app.data.formats.csv import CSV
from app.errors import InvalidInput
from app.prediction.column_differences import column_differences
from app.prediction.tables import TableOptions, TableRows
from app.registry.version_file import Version

MODEL = model_of(np.arange(8.0)[:, np.newaxis], np.arange(8.0)[:, np.newaxis])
TARGET = Column("yield")
SIZE, ISLAND = Column("size"), Column("island", "category", levels=("Biscoe", "Dream"))
WILD, SEEN = Column("wild", "boolean"), Column("seen", "date")
COLUMNS = (SIZE, ISLAND, WILD, SEEN)


def version(number: int, *features: Column, dialect: Dialect | None = None, **card: Any) -> Version:
    table = TableSchema(features, (TARGET,), dialect=dialect or Dialect(), left_out=card.pop("left_out", ()))
    names = tuple(column.name for column in features)
    made = version_of(MODEL, version=number, features=names, targets=("yield",), table=table, **card)
    return Version(made.card, MODEL)


def differences(new: Version, current: Version) -> dict[str, str]:
    return {each.column: each.message for each in column_differences(new.card, current.card)}


CURRENT = version(1, *COLUMNS)


@pytest.mark.parametrize(
    ("features", "column", "message"),
    [
        ((*COLUMNS, Column("wind")), "wind", "Version 2 needs this column. The current version 1 does not have it."),
        (COLUMNS[1:], "size", "The current version 1 needs this column. Version 2 rejects it."),
        (
            (Column("size", "category", levels=("1", "2")), *COLUMNS[1:]),
            "size",
            "a category for version 2, and a number",
        ),
        ((replace(SIZE, kind="date"), *COLUMNS[1:]), "size", "It is a date for version 2, and a number for version 1."),
        ((SIZE, replace(ISLAND, levels=("Dream",)), *COLUMNS[2:]), "island", 'does not know this level: "Biscoe".'),
        ((ISLAND, SIZE, *COLUMNS[2:]), "size", "In arrays, it is value 2 for version 2, and value 1 for version 1."),
        ((replace(SIZE, na=("-999",)), *COLUMNS[1:]), "size", 'Version 2 reads "-999" as a missing value'),
    ],
)
def test_a_difference_names_the_column_and_says_why(features: tuple[Column, ...], column: str, message: str) -> None:
    assert message in differences(version(2, *features), CURRENT)[column]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({"missing": "fill", "fill": 1.0}, {}, "Version 2 rejects a missing value, and version 1 replaces it."),
        ({"na": ("none",)}, {}, 'Version 2 does not read "none" as a missing value, as version 1 does.'),
        ({"strings": True}, {}, "Version 2 rejects numbers that are strings."),
        ({"thousands": "'"}, {"strings": True}, 'Version 2 rejects "\'" between thousands.'),
        ({"strip": ("$", "%")}, {"strip": ("%",)}, 'Version 2 rejects numbers with "$".'),
        ({"strings": True, "decimal": ","}, {"strings": True}, 'is "." for version 2, and "," for version 1.'),
    ],
)
def test_a_difference_in_the_reading_of_a_number_is_named(
    before: dict[str, Any], after: dict[str, Any], message: str
) -> None:
    new, current = version(2, replace(SIZE, **after)), version(1, replace(SIZE, **before))
    assert message in differences(new, current)["size"]


def test_another_order_of_day_and_month_is_a_difference() -> None:
    iso, dmy, mdy = version(2, SEEN), version(2, replace(SEEN, dates="dmy")), version(1, replace(SEEN, dates="mdy"))
    message = 'Version 2 does not read dates in the order "mdy", as version 1 does.'
    assert differences(dmy, mdy) == differences(iso, mdy) == {"seen": message}
    assert differences(mdy, iso) == {}


def test_a_column_that_the_other_version_ignores_has_no_place_in_its_arrays() -> None:
    fewer = version(2, *COLUMNS[1:], unused_columns=("size",))
    assert differences(fewer, CURRENT) == {
        "size": "The current version 1 needs this column. Version 2 ignores it, so its arrays have no value for it."
    }


def test_a_column_that_only_the_current_version_ignores_is_a_difference() -> None:
    ignoring = version(1, SIZE, unused_columns=("farm",), left_out=(LeftOut("id", "identifier"),))
    assert differences(version(2, SIZE), ignoring) == dict.fromkeys(
        ("farm", "id"), "The current version 1 ignores this column. Version 2 rejects it."
    )
    assert differences(ignoring, version(2, SIZE)) == {}


@pytest.mark.parametrize(
    "features",
    [
        COLUMNS,
        (replace(SIZE, missing="fill", fill=0.0), *COLUMNS[1:]),
        (replace(SIZE, thousands=",", na=("unknown",)), *COLUMNS[1:]),
        (SIZE, replace(ISLAND, levels=("Dream", "Torgersen", "Biscoe")), *COLUMNS[2:]),
        (*COLUMNS[:3], replace(SEEN, dates="dmy")),
    ],
)
def test_a_version_that_accepts_more_has_no_differences(features: tuple[Column, ...]) -> None:
    assert differences(version(2, *features, unused_columns=("farm",)), CURRENT) == {}


def test_the_decimal_sign_of_the_training_file_is_no_difference() -> None:
    german = version(1, replace(SIZE, decimal=","), WILD, dialect=Dialect(sep=";", decimal=","))
    english = version(2, SIZE, WILD)
    assert differences(german, english) == differences(english, german) == {}
    for one, text in ((german, "size,wild\n1.5,true\n"), (english, "size;wild\n1,5;true\n")):
        assert read_csv(one, text) == [[1.5, 1.0]]


NUMBERS = st.builds(
    Column,
    st.just("size"),
    missing=st.sampled_from(["drop", "refuse", "fill", "indicator"]),
    fill=st.just(7.0),
    na=st.sampled_from([(), ("-999",), ("unknown", "-999")]),
    strip=st.sampled_from([(), ("$",), ("$", "%")]),
    thousands=st.sampled_from(["", " "]),
    strings=st.booleans(),
)
CATEGORIES = st.builds(
    Column,
    st.just("island"),
    st.just("category"),
    st.sampled_from([("Biscoe", "Dream"), ("Dream", "none", "Biscoe"), ("Biscoe", "none", "Dream")]),
    missing=st.sampled_from(["drop", "indicator"]),
    na=st.sampled_from([(), ("none",)]),
).filter(lambda column: not {*column.na} & {*column.levels})
BOOLEANS = st.builds(Column, st.just("wild"), st.just("boolean"), na=st.sampled_from([(), ("n",)]))
DATES = st.builds(Column, st.just("seen"), st.just("date"), dates=st.sampled_from([None, "dmy", "mdy", "ymd"]))
FIRST = st.one_of(NUMBERS, NUMBERS, NUMBERS, st.sampled_from([Column("size", "boolean"), Column("size", "date")]))
KINDS = {"size": FIRST, "island": CATEGORIES, "wild": BOOLEANS, "seen": DATES}
PLACES = [0, 1, 2, 3]
ORDERS = [*[(PLACES, PLACES)] * 3, (PLACES, [3, 1, 2, 0]), (PLACES, [1, 2, 3]), ([1, 2, 3], PLACES)]
UNUSED = st.sampled_from([(), ("farm",), ("farm", "size")])
CELLS: dict[str, list[Any]] = {
    "size": [1, 2.5, "3", "$4", "1 000", "-999", -999, "unknown", None, True, "2020-01-02"],
    "island": ["Biscoe", "Dream", "none", None],
    "wild": [True, False, "n", "yes", 1],
    "seen": ["2020-01-02", "2/1/2020", "2 Jan 2020", "2020/01/02", 20200102],
}


@settings(max_examples=150)
@given(st.data())
def test_a_version_without_differences_reads_each_row_that_the_current_version_reads(data: st.DataObject) -> None:
    features = [data.draw(kind) for kind in KINDS.values()]
    name = data.draw(st.sampled_from([*KINDS]))
    others = [data.draw(KINDS[name]) if column.name == name else column for column in features]
    first, second = data.draw(st.sampled_from(ORDERS))
    current, new = (
        version(number, *map(columns.__getitem__, order), unused_columns=data.draw(UNUSED))
        for number, columns, order in ((1, features, first), (2, others, second))
    )
    if differences(new, current):
        return
    for row in accepted_rows(current, name):
        for values in (row, row | dict.fromkeys(current.ignored, 5), [row[each] for each in current.encoder.names]):
            expected, found = meaning(current, values), meaning(new, values)
            assert expected is not None
            assert found is not None
            assert found == {each: value for each, value in expected.items() if each in found}
        table = row | dict.fromkeys(current.ignored, 5)
        text = io.StringIO()
        csv.writer(text).writerows([[*table], [*table.values()]])
        if reads_csv(current, text.getvalue()):
            assert reads_csv(new, text.getvalue())


def accepted_rows(one: Version, name: str) -> Iterator[dict[str, Any]]:
    """Yield rows that a version accepts, with each of its cells in the column `name`."""
    cells = {
        column.column.name: [
            cell
            for cell in CELLS[column.column.name]
            if column.check([cell], missing=False, unknown="refuse")(cell) is None
        ]
        for column in one.encoder.columns
    }
    first = {each: found[0] for each, found in cells.items()}
    yield first
    yield from (first | {name: cell} for cell in cells.get(name, ()))


def meaning(one: Version, row: Any) -> dict[str, object] | None:
    """Return the values by column, without those that are missing; None if the version rejects the row."""
    encoder = one.encoder
    try:
        (codes,) = encoder.read([row], "", missing=False, unknown="refuse", ignored=one.ignored).codes.tolist()
    except InvalidInput:
        return None
    values: dict[str, object] = {}
    for place, (column, code) in enumerate(zip(encoder.columns, codes, strict=True)):
        own = row[column.column.name] if isinstance(row, dict) else row[place]
        is_missing = (known := column.codes([own])) is None or bool(np.isnan(known).any())
        if not is_missing:
            levels = column.column.levels
            values[column.column.name] = levels[int(code)] if levels else code
    return values


def reads_csv(one: Version, text: str) -> bool:
    try:
        return bool(read_csv(one, text))
    except InvalidInput:
        return False


def read_csv(one: Version, text: str) -> list[list[float]]:
    rows = TableRows(text.encode(), CSV, one, TableOptions(), lambda _: None)
    return [row for batch in rows.batches(1 << 20) for row in batch.values.tolist()]
