"""The kind of a column follows from its cells, and is never guessed where two kinds are possible."""

from typing import Any

import pyarrow as pa
import pytest
from cells import N, Y, column, cycle, fault, infer

from app.data.batch import CellBatch
from app.data.columns.options import ColumnOptions, Kind, ReadingOptions
from app.data.columns.plan import Roles, plan_schema
from app.data.columns.schema import Dialect
from app.errors import InvalidInput


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (("1", "2.5", "-3e4"), "number"),
        (("1", "NA", "2"), "number"),
        (("1", "None", "2", "#DIV/0!"), "number"),
        (("1", "?", "2", "--", "."), "number"),
        (("1", None, "2"), "number"),
        ((None,), "number"),
        (("NA", None), "number"),
        (("1,234.5", "17", "1,000"), "number"),
        (("TRUE", "FALSE"), "boolean"),
        (("yes", "no", "NA"), "boolean"),
        (("Y", "N"), "boolean"),
        (("n", "f"), "category"),
        (("true", "yes"), "category"),
        (("2020-01-31", "2019-12-01"), "date"),
        (("2020-01-31T12:00:00+01:00", "2019-12-01", None), "date"),
        (("Jan 1 2000", "Feb 29 2000"), "date"),
        (("31/01/2020", "02/03/2020"), "date"),
        (("01/31/2020", "02/03/2020"), "date"),
        (("a", "b", "None"), "category"),
        (("yes", "no", "maybe"), "category"),
        (("-", "+"), "category"),
        (("1a", "2", "3b"), "category"),
    ],
)
def test_kind_of_texts(values: tuple[Any, ...], kind: Kind) -> None:
    assert column(cycle(*values)).kind == kind


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (pa.array(cycle(1, 2, None), pa.int64()), "number"),
        (pa.array(cycle(1.5, None)), "number"),
        (pa.array(cycle(True, False)), "boolean"),
        (pa.array(cycle(1, 20000), pa.date32()), "date"),
        (pa.array(cycle(1, 20000), pa.timestamp("us")), "date"),
        (pa.array(cycle("a", "b")), "category"),
        (pa.array(cycle("yes", "no")), "category"),
        (pa.array(cycle("NA", "None")), "category"),
        (pa.array(cycle("2020-01-31", "2020-02-01")), "date"),
        (pa.array(cycle("1", "2")).dictionary_encode(), "category"),
        (pa.array(cycle(1, 2)).dictionary_encode(), "category"),
        (pa.nulls(N), "number"),
    ],
)
def test_kind_of_typed_cells(cells: pa.Array, kind: Kind) -> None:
    assert column(cells, untyped=False).kind == kind


def test_numbers_sent_as_strings_are_refused_unless_the_client_names_their_kind() -> None:
    cells = pa.array(cycle("1", "2", None))

    assert "Numbers sent as strings" in fault(cells, untyped=False)
    assert column(cells, untyped=False, kinds={"x": "number"}).kind == "number"
    assert column(cells, untyped=False, kinds={"x": "category"}).levels == ("1", "2")


def test_levels_are_in_code_point_order_and_the_first_is_the_reference() -> None:
    assert column(cycle("b", "é", "B", "a", None)).levels == ("B", "a", "b", "é")


def test_reference_option_moves_a_level_to_the_front() -> None:
    options = ReadingOptions(columns={"x": ColumnOptions(reference="b")})

    assert column(cycle("c", "a", "b"), options=options).levels == ("b", "a", "c")


def test_reference_that_is_no_level_is_refused() -> None:
    options = ReadingOptions(columns={"x": ColumnOptions(reference="z")})

    assert "no level that is called like the given reference" in fault(cycle("a", "b"), options=options)


def test_mostly_numbers_with_some_words_are_never_a_category() -> None:
    message = fault(cycle("1", "2", "3", "unknown"))

    assert message.startswith('Row 5, column "x": 7 of 30 values cannot be read as finite numbers, first in this row')
    assert "`na=unknown`" in message
    assert "`categories`" in message


def test_na_option_turns_words_into_gaps() -> None:
    assert column(cycle("1", "2", "3", "none given"), options=ReadingOptions(na=("none given",))).kind == "number"


def test_mostly_numbers_are_a_category_if_the_client_requests_it() -> None:
    assert column(cycle("1", "2", "3", "x"), kinds={"x": "category"}).levels == ("1", "2", "3", "x")


@pytest.mark.parametrize(
    ("values", "option"),
    [
        (("$1.50", "$20"), "`strip=$`"),
        (("10%", "20%"), "`strip=%`"),
        (("$1,234.50", "$20"), "`strip=$` with `thousands=,`"),
        (("1 234", "20", "3 456"), "`thousands=space`"),
        (("1,5", "22,75"), "`decimal=,`"),
        (("1.234,5", "22,75"), "`decimal=,` with `thousands=.`"),
    ],
)
def test_numbers_in_disguise_are_refused_with_the_option_that_reads_them(values: tuple[str, ...], option: str) -> None:
    assert f"{option} reads them" in fault(cycle(*values))


def test_strip_option_reads_signs_and_finds_thousands() -> None:
    read = column(cycle("$1,234.50", "$20"), options=ReadingOptions(strip=("$",)))

    assert (read.kind, read.thousands, read.strip) == ("number", ",", ("$",))


def test_thousands_are_found_with_a_warning() -> None:
    inferred = infer({"x": cycle("1,234.5", "17", "1,000"), "y": Y})

    assert inferred.schema.features[0].thousands == ","
    assert 'Commas were read as separators between thousands in "x"' in inferred.warnings[0]


def test_thousands_are_found_only_in_a_file_separated_by_commas() -> None:
    assert "`thousands=,` reads them" in fault(cycle("1,234", "1,000"), dialect=Dialect(sep=";"))
    assert (
        column(cycle("1,234", "1,000"), options=ReadingOptions(thousands=","), dialect=Dialect(sep=";")).thousands
        == ","
    )


def test_commas_do_not_separate_thousands_if_one_is_elsewhere() -> None:
    assert "`decimal=,` reads them" in fault(cycle("1,234", "1", "2", "3", "1,5"))
    assert "cannot be read as finite numbers" in fault(cycle("1,234", "1", "2", "3", "1,5", "2.5"))


@pytest.mark.parametrize("values", [("03/04/2020", "05/06/2021"), ("3.4.2020",)])
def test_dates_in_an_ambiguous_order_are_refused_with_the_options(values: tuple[str, ...]) -> None:
    message = fault(cycle(*values))

    assert "`dates=dmy` or `dates=mdy`" in message
    assert column(cycle(*values), options=ReadingOptions(dates="mdy")).dates == "mdy"


def test_order_of_dates_is_the_one_that_fits_all() -> None:
    assert column(cycle("03/04/2020", "13/04/2020")).dates == "dmy"
    assert column(cycle("03/04/2020", "04/13/2020")).dates == "mdy"
    assert column(cycle("2020/04/13", "2020/12/01")).dates == "ymd"
    assert column(cycle("2020-04-13")).dates is None


def test_dates_that_were_asked_for_have_the_order_that_fits_all() -> None:
    def order(*values: str) -> str | None:
        return column(cycle(*values), kinds={"x": "date"}).dates

    assert order("2020-01-31", "Jan 1 2000") is None
    assert order("31/01/2020", "01/02/2020") == "dmy"
    assert order("20200131", "20191201") == "ymd"
    assert column(pa.array([20200131] * N), kinds={"x": "date"}).dates == "ymd"
    assert "`dates=dmy` or `dates=mdy`" in fault(cycle("03/04/2020"), kinds={"x": "date"})
    assert "10 of 30 values cannot be read as dates" in fault(
        cycle("31/01/2020", "01/02/2020", "soon"), kinds={"x": "date"}
    )


def test_order_of_dates_that_was_given_and_does_not_fit_is_refused() -> None:
    for options in (ReadingOptions(dates="mdy"), ReadingOptions(columns={"x": ColumnOptions("date", dates="mdy")})):
        with pytest.raises(InvalidInput) as refused:
            infer({"x": [*["02/11/2020"] * (N - 2), "24/12/2020", "03/11/2020"], "y": Y}, options=options)

        assert (refused.value.details[0].row, refused.value.details[0].column) == (N, "x")
        assert "1 of 30 values cannot be read as dates in the order month, day, year (`dates=mdy`)" in (
            refused.value.message
        )
    assert "but most can in another order. Correct `dates`" in fault(
        cycle("24/12/2020", "23/11/2020", "02/03/2020"), options=ReadingOptions(dates="mdy")
    )


def test_mostly_dates_with_some_words_are_refused() -> None:
    assert "10 of 30 values cannot be read as dates of one order" in fault(cycle("2020-01-01", "2020-01-02", "soon"))


def test_word_that_is_a_date_is_a_level_among_words() -> None:
    assert column(cycle("2020-01-01", "2020-01-01", "2020-01-01", "red", "blue")).kind == "category"


def test_integers_that_look_like_dates_are_numbers_with_a_warning() -> None:
    cells = cycle("20200131", "20191201", "20000229")
    inferred = infer({"x": cells, "y": Y})

    assert inferred.schema.features[0].kind == "number"
    assert "look like dates" in inferred.warnings[0]
    assert column(cells, options=ReadingOptions(dates="ymd")).kind == "date"
    typed = pa.array([int(text) for text in cells])
    assert column(typed, untyped=False, options=ReadingOptions(dates="ymd")).kind == "date"


def test_texts_among_booleans_are_refused() -> None:
    def cells(start: int) -> pa.Array:
        return pa.array(["a", "b"]) if start else pa.array([True, False])

    batches = [CellBatch(pa.RecordBatch.from_pydict({"x": cells(start), "y": [1.0, 2.0]})) for start in (0, 2)]
    with pytest.raises(InvalidInput, match='Row 3, column "x": Found booleans and texts in one column'):
        plan_schema(lambda _: iter(batches), Roles(("x", "y"), ("y",)), ReadingOptions())


def test_type_that_no_kind_has_is_refused() -> None:
    cells = pa.array(range(N), pa.duration("s"))

    assert "found the type duration" in fault(cells, untyped=False)
    assert "Expected numbers, found the type date32" in fault(
        pa.array(range(N), pa.date32()), untyped=False, kinds={"x": "number"}
    )
