"""Options of reading: the same in a query and in JSON, and refused with the allowed values."""

import json
from typing import Any

import pytest
from starlette.datastructures import QueryParams

from app.data.columns.options import ColumnOptions, ReadingOptions
from app.errors import InvalidInput
from app.web import bodies
from app.web.schemas.train import TrainRequest
from app.web.schemas.train_query import from_query

ROWS: dict[str, Any] = {"instances": [[1]], "targets": [[1]]}


def of_query(query: str) -> ReadingOptions:
    return from_query(QueryParams(query)).reading()


def of_body(**options: Any) -> ReadingOptions:
    return bodies.decode(TrainRequest, json.dumps(ROWS | options).encode()).reading()


def test_a_query_and_a_body_give_the_same_options() -> None:
    columns = {"age": {"missing": "fill", "fill": 0.5}, "code": {"kind": "number", "thousands": "."}}
    query = (
        "decimal=,&na=-,unknown&strip=$,%25&dates=dmy&categories=zip&booleans=open&drop=note&missing=indicator"
        f"&reference=city:Rome&fill=zip:00100&columns={json.dumps(columns)}"
    )
    body = of_body(
        decimal=",",
        na=["-", "unknown"],
        strip=["$", "%"],
        dates="dmy",
        categories=["zip"],
        booleans=["open"],
        drop=["note"],
        missing="indicator",
        reference={"city": "Rome"},
        fill={"zip": "00100"},
        columns=columns,
    )
    assert of_query(query) == body
    assert body.columns == {
        "age": ColumnOptions(missing="fill", fill=0.5),
        "code": ColumnOptions(kind="number", thousands="."),
        "zip": ColumnOptions(kind="category", fill="00100"),
        "open": ColumnOptions(kind="boolean"),
        "city": ColumnOptions(kind="category", reference="Rome"),
    }


def test_signs_that_are_hard_to_type_have_names() -> None:
    assert of_query("sep=tab&thousands=space&encoding=LATIN-1&sheet=2&skip=3") == ReadingOptions(
        sep="\t", thousands=" ", encoding="iso-8859-1", sheet=2, skip=3
    )
    assert of_query("sep=semicolon&sheet=Data").sheet == "Data"
    assert of_query("reference=time:10:30").columns["time"].reference == "10:30"
    assert of_query("fill=age:0").columns["age"].fill == 0.0


@pytest.mark.parametrize(
    ("query", "option", "says"),
    [
        ("sep=x", "sep", "Expected ',', ';'"),
        ("decimal=;", "decimal", "Expected '.' or ','"),
        ("missing=mean", "missing", "Expected 'drop', 'refuse', 'indicator' or 'fill'"),
        ("dates=dm", "dates", 'Did you mean "dmy"?'),
        ("encoding=utf-7", "encoding", "'windows-1252'"),
        ("skip=-1", "skip", "greater than or equal to 0"),
        ("fill=age", "fill", "NAME:VALUE"),
        ("reference=a:x,a:y", "reference", "more than once"),
        ("columns={", "columns", "JSON object"),
        ('columns={"a":{"kind":"word"}}', "columns", "'number', 'boolean', 'date' or 'category'"),
        ('columns={"a":{"kid":"number"}}', "columns", 'no such option: "kid"'),
    ],
)
def test_a_bad_option_is_refused_with_what_is_allowed(query: str, option: str, says: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        of_query(query)
    (detail,) = refused.value.details
    assert (detail.parameter, says in detail.message) == (option, True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"categories": ["a"], "numbers": ["a"]}, "more than one `kind`"),
        ({"columns": {"a": {"kind": "number"}}, "reference": {"a": "x"}}, "Only a category has a reference level"),
        ({"drop": ["a"], "categories": ["a"]}, "`drop` leaves it out"),
        ({"missing": "fill"}, "needs `fill`"),
        ({"columns": {"a": {"missing": "fill"}}}, "needs `fill`"),
        ({"columns": {"a": {"missing": "drop", "fill": 1}}}, "has a constant for its gaps"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        of_body(**options)
