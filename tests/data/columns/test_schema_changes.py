"""The schema of the current version comes first: later rows are read with it, or refused with the difference."""

from typing import Any

import pytest
from cells import infer, numbers, reader

from app.data.columns.options import ColumnOptions, ReadingOptions
from app.data.columns.plan import Inferred, Mode, Roles, plan_schema
from app.data.columns.schema import Column, TableSchema
from app.errors import InvalidInput

N = 24
Y = numbers(N)
FIRST: dict[str, list[Any]] = {
    "g": ["b", "c", "d"] * 8,
    "d": ["31/12/2020", "01/02/2021"] * 12,
    "x": [None, *numbers(N - 1)],
    "y": Y,
}


def first(**options: Any) -> TableSchema:
    return infer(FIRST, options=ReadingOptions(**options)).schema


def apply(
    current: TableSchema, mode: Mode = "replace", options: ReadingOptions | None = None, **cells: list[Any]
) -> Inferred:
    columns = FIRST | cells
    return plan_schema(
        reader(columns),
        Roles(tuple(columns), ("y",)),
        options or ReadingOptions(),
        untyped=True,
        first_row=2,
        current=current,
        mode=mode,
    )


def refusal(current: TableSchema, mode: Mode = "replace", options: ReadingOptions | None = None, **cells: Any) -> str:
    with pytest.raises(InvalidInput) as refused:
        apply(current, mode, options, **cells)
    return refused.value.message


@pytest.mark.parametrize("mode", ["replace", "update", "forget"])
def test_same_rows_have_the_same_schema(mode: Mode) -> None:
    current = first(missing="indicator")

    assert apply(current, mode).schema == current


@pytest.mark.parametrize("mode", ["replace", "update", "forget"])
def test_kinds_of_the_current_version_stay_if_the_cells_suggest_others(mode: Mode) -> None:
    cells: dict[str, list[Any]] = {"g": ["b"] * N, "d": ["03/04/2020"] * N, "x": [None] * N}
    current = first(missing="indicator")

    schema = apply(current, mode, None, **cells).schema

    assert [column.kind for column in schema.features] == ["category", "date", "number"]
    assert schema.features[1].dates == "dmy"
    assert schema.features[2] == current.features[2]


def test_update_appends_new_levels() -> None:
    inferred = apply(first(), "update", g=["e", "a", "c"] * 8)

    assert inferred.schema.features[0].levels == ("b", "c", "d", "a", "e")
    assert inferred.warnings == ('Levels that the model did not know were added to "g".',)


def test_replace_takes_the_levels_of_its_rows_and_keeps_the_reference() -> None:
    current = first(columns={"g": ColumnOptions(reference="c")})

    assert apply(current, g=["e", "a", "c"] * 8).schema.features[0].levels == ("c", "a", "e")


def test_replace_without_the_reference_level_takes_the_first_with_a_warning() -> None:
    inferred = apply(first(), g=["e", "c"] * 12)

    assert inferred.schema.features[0].levels == ("c", "e")
    assert "reference level of the current version does not occur" in inferred.warnings[0]


def test_forget_refuses_levels_that_the_model_does_not_know() -> None:
    with pytest.raises(InvalidInput) as refused:
        apply(first(), "forget", g=["b"] * 5 + ["z"] * 19)

    assert refused.value.message == 'Row 7, column "g": The level is not known.'
    assert 'Received "z". Known levels: "b", "c", "d".' in refused.value.details[0].message


@pytest.mark.parametrize(
    ("mode", "way_out"),
    [("replace", "add `schema=infer`"), ("update", "with mode `replace`"), ("forget", "as in the training")],
)
def test_column_that_does_not_fit_its_kind_is_refused_with_the_way_out(mode: Mode, way_out: str) -> None:
    message = refusal(first(), mode, x=["1", "two", "three"] * 8)

    assert message.startswith('Row 3, column "x": 16 of 24 values cannot be read as finite numbers')
    assert way_out in message
    assert "dates" in refusal(first(), mode, d=["soon"] * N)


def test_missing_column_is_refused_with_the_way_out() -> None:
    with pytest.raises(InvalidInput, match=r'lack columns of the current version: "d".*`schema=infer`'):
        plan_schema(reader(FIRST), Roles(("g", "x", "y"), ("y",)), ReadingOptions(), current=first())


def test_columns_that_the_version_does_not_have_are_inferred() -> None:
    schema = apply(first(), extra=["yes", "no"] * 12).schema

    assert schema.features[3] == Column("extra", "boolean")


@pytest.mark.parametrize("mode", ["update", "forget"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("g", {"kind": "number"}),
        ("g", {"reference": "c"}),
        ("x", {"missing": "refuse"}),
        ("x", {"fill": 1.0}),
        ("d", {"dates": "mdy"}),
    ],
)
def test_options_may_not_contradict_the_version_that_is_built_on(mode: Mode, name: str, options: Any) -> None:
    message = refusal(first(), mode, ReadingOptions(columns={name: ColumnOptions(**options)}))

    assert "differs from that of the current version" in message


def test_filled_gaps_cannot_leave_rows_out_in_an_update() -> None:
    assert "`missing=indicator`" in refusal(first(missing="indicator"), "update", ReadingOptions(missing="drop"))
    assert apply(first(missing="indicator"), "update", ReadingOptions(missing="indicator")).schema.features[2].fill


def test_gaps_that_leave_rows_out_cannot_be_filled_in_an_update() -> None:
    message = refusal(first(), "update", ReadingOptions(missing="indicator"))

    assert "no column with `missing=indicator`; it has `missing=drop`. Leave the option out." in message
    assert apply(first(), "update", ReadingOptions(missing="refuse")).schema.features[2].missing == "refuse"


def test_replace_may_change_options_but_not_kinds() -> None:
    current = first()
    options = ReadingOptions(missing="indicator", columns={"g": ColumnOptions(reference="d")})

    schema = apply(current, options=options).schema

    assert schema.features[0].levels == ("d", "b", "c")
    assert schema.features[2].missing == "indicator"
    assert "`schema=infer`" in refusal(current, options=ReadingOptions(columns={"x": ColumnOptions(kind="category")}))


def test_constants_for_gaps_stay() -> None:
    options = ReadingOptions(columns={"g": ColumnOptions(fill="z"), "x": ColumnOptions(fill=5.0)})
    current = infer(FIRST | {"g": ["b", "c", "d", None] * 6}, options=options).schema

    schema = apply(current, g=["b", "c", None] * 8, x=[None, "1"] * 12).schema

    assert (schema.features[0].levels, schema.features[0].fill) == (("b", "c", "z"), "z")
    assert schema.features[2].fill == 5


def test_new_texts_for_gaps_are_added() -> None:
    schema = apply(first(), "update", ReadingOptions(na=("unknown",)), x=["unknown", *numbers(N - 1)]).schema

    assert schema.features[2].na == ("unknown",)


def test_target_that_was_a_category_is_refused() -> None:
    with pytest.raises(InvalidInput, match="holds words, but a target"):
        plan_schema(reader(FIRST), Roles(("g", "d", "x", "y"), ("g",)), ReadingOptions(), untyped=True, current=first())


def test_strings_are_numbers_in_formats_with_numbers_only_if_an_option_says_so() -> None:
    current, roles = infer({"x": [1.5, 2.5], "y": [1.0, 2.0]}).schema, Roles(("x", "y"), ("y",))
    strings = reader({"x": [None, "1.5"], "y": [1.0, 2.0]})
    named = ReadingOptions(columns={"x": ColumnOptions(kind="number")})

    with pytest.raises(InvalidInput, match="Expected numbers, found a string") as refused:
        plan_schema(strings, roles, ReadingOptions(), current=current)
    assert (refused.value.details[0].row, refused.value.details[0].column) == (2, "x")
    allowed = plan_schema(strings, roles, named, current=current).schema
    assert plan_schema(strings, roles, ReadingOptions(), current=allowed).schema.features == allowed.features
    plan_schema(strings, roles, ReadingOptions(), untyped=True, current=current)
