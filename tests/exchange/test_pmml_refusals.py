"""PMML files that are not linear, damaged or hostile are refused with a sentence that names the cause."""

from contextlib import suppress
from resource import RUSAGE_SELF, getrusage

import pytest
from exchange.test_pmml_reader import FILES, FOLDER, field, numeric, pmml
from exported import version_of
from hypothesis import given, settings
from hypothesis import strategies as st
from mixed import version_of_table

from app.data.columns.schema import Column, TableSchema
from app.errors import InvalidInput, NotExportable
from app.exchange.pmml.reader import PmmlImport
from app.exchange.pmml.writer import PmmlExport

READER = PmmlImport()
TREE = b'<PMML version="4.4"><TreeModel functionName="regression"/></PMML>'
LINE = '<NormContinuous field="rain"><LinearNorm orig="1" norm="0"/><LinearNorm orig="2" norm="1"/>{}</NormContinuous>'


def derived(expression: str, name: str = "d") -> bytes:
    return pmml(numeric(name), field(name, expression))


def applied(function: str, *fields: str) -> bytes:
    return derived(
        f'<Apply function="{function}">' + "".join(f'<FieldRef field="{name}"/>' for name in fields) + "</Apply>"
    )


NOT_LINEAR = {
    "another model": (TREE, "has a TreeModel.*Supported: RegressionModel"),
    "an ensemble": (
        (FOLDER / "sklearn2pmml_multi.pmml").read_bytes().replace(b"x-multiModelChain", b"average"),
        "MiningModel whose models are combined",
    ),
    "a segment for some rows": (
        (FOLDER / "sklearn2pmml_multi.pmml").read_bytes().replace(b"<True/>", b"<False/>"),
        "not one model for all rows",
    ),
    "a classification": (pmml("", model='normalizationMethod="logit"'), 'normalizationMethod "logit".*not linear'),
    "a function": (applied("exp", "temp"), 'function "exp".*not linear.*Supported: '),
    "a division by a field": (applied("/", "temp", "rain"), "a field where a constant is expected"),
    "an expression": (derived('<Discretize field="temp"/>'), "expression Discretize.*Supported: FieldRef"),
    "a curve": (derived(LINE.format('<LinearNorm orig="3" norm="9"/>')), "one straight line"),
    "clipped outliers": (
        pmml(numeric("temp"), mining='<MiningField name="temp" outliers="asExtremeValues"/>'),
        'outliers of "temp" as "asExtremeValues"',
    ),
    "a rounded target": (
        pmml(numeric("temp"), after='<Targets><Target castInteger="round"/></Targets>'),
        "castInteger",
    ),
    "an exponent that is no integer": (
        pmml('<NumericPredictor name="temp" exponent="1.5" coefficient="1"/>'),
        "whole number",
    ),
    "an infinite exponent": (
        pmml('<NumericPredictor name="temp" exponent="1e999" coefficient="1"/>'),
        'exponent.*exceeds the range of 64-bit numbers: "1e999"',
    ),
    "an infinite power": (
        derived('<Apply function="pow"><FieldRef field="temp"/><Constant>1e999</Constant></Apply>'),
        "A constant exceeds the range",
    ),
    "a line to infinity": (
        derived(
            '<NormContinuous field="rain"><LinearNorm orig="1" norm="0"/><LinearNorm orig="-1e999" norm="1"/>'
            "</NormContinuous>"
        ),
        "orig.*exceeds the range",
    ),
    "a field that depends on itself": (applied("+", "d", "temp"), '"d" depends on itself'),
    "a field that is not there": (pmml(numeric("wind")), '"wind", which the file does not define'),
    "a number that is none": (pmml('<NumericPredictor name="temp" coefficient="1,5"/>'), 'not a number: "1,5"'),
    "a number of Python": (pmml('<NumericPredictor name="temp" coefficient="1_000"/>'), "not a number"),
    "an infinite number": (pmml('<NumericPredictor name="temp" coefficient="INF"/>'), "not a number"),
    "a number beyond 64 bits": (pmml('<NumericPredictor name="temp" coefficient="1e999"/>'), "range of 64-bit"),
    "no coefficient": (pmml('<NumericPredictor name="temp"/>'), "no attribute coefficient"),
    "a number of a category": (pmml(numeric("region")), '"region", which is not a number'),
    "a level of a number": (pmml('<CategoricalPredictor name="temp" value="1" coefficient="1"/>'), "not a category"),
    "an element of the table": (pmml("<Surprise/>"), "has an element Surprise"),
    "no table": (pmml("").replace(b"RegressionTable", b"Extension"), "0 tables"),
    "no features": (pmml(""), "At least one feature"),
    "a type": (pmml(numeric("t"), fields='<DataField name="t" dataType="time"/>'), 'type "time"'),
}


@pytest.mark.parametrize("name", NOT_LINEAR)
def test_a_file_that_is_not_linear_is_refused_by_name(name: str) -> None:
    content, message = NOT_LINEAR[name]
    with pytest.raises(InvalidInput, match=message):
        READER.read(content, {})


LAUGHS = b"".join(b'<!ENTITY a%d "%s">' % (i, b"&a%d;" % (i - 1) * 10 if i else b"ha") for i in range(10))
SUM = "".join(f'<FieldRef field="x{i}"/>' for i in range(2000))
SUMS = pmml(
    "".join(numeric(f"d{i}") for i in range(300)),
    "".join(
        field(
            f"d{i}",
            f'<Apply function="+">{SUM if i == 0 else """<FieldRef field="d0"/><Constant>1</Constant>"""}</Apply>',
        )
        for i in range(300)
    ),
    "".join(f'<DataField name="x{i}" dataType="double"/>' for i in range(2000)),
    mining="".join(f'<MiningField name="x{i}"/>' for i in range(2000)),
)
MODEL = '<RegressionModel functionName="regression" modelName="m{}"><MiningSchema/><RegressionTable/></RegressionModel>'
TARGETS = "".join(map(MODEL.format, range(1999)))
PREDICTOR = '<NumericPredictor name="temp" exponent="{}1" coefficient="1"/>'
HOSTILE = {
    "many sums": (SUMS, "more than 500,000 products"),
    "many targets with many predictors": (
        pmml(
            "".join(PREDICTOR.format("0" * i) for i in range(990))
            + "".join(PREDICTOR.format("+" + "0" * i) for i in range(990))
        ).replace(b"</PMML>", TARGETS.encode() + b"</PMML>"),
        "too many coefficients",
    ),
    "a product of nothing": (pmml('<PredictorTerm coefficient="1"/>'), "PredictorTerm without fields"),
    "a billion laughs": (b"<!DOCTYPE PMML [" + LAUGHS + b"]><PMML>&a9;</PMML>", "document type"),
    "an external entity": (b'<!DOCTYPE P [<!ENTITY x SYSTEM "file:///etc/passwd">]><PMML>&x;</PMML>', "document type"),
    "an external document type": (b'<!DOCTYPE PMML SYSTEM "http://localhost/x.dtd"><PMML/>', "document type"),
    "300,000 elements": (b"<PMML>" + b"<a/>" * 300_000 + b"</PMML>", "more than 250,000 elements"),
    "elements within elements": (b"<PMML>" + b"<a>" * 100_000, "within each other"),
    "a huge attribute": (b'<PMML x="' + b"9" * (8 << 20) + b'"><Header/></PMML>', "no model"),
    "a huge number": (pmml(f'<NumericPredictor name="temp" coefficient="{"9" * 100_000}"/>'), "not a number"),
    "a huge exponent": (pmml(numeric("temp", 1.0, 10**9)), "Powers from 1 to 20"),
    "products of sums": (
        pmml(
            numeric("d7"),
            field(
                "d0",
                '<Apply function="+"><FieldRef field="temp"/><FieldRef field="rain"/><Constant>1</Constant></Apply>',
            )
            + "".join(
                field(f"d{i + 1}", f'<Apply function="*"><FieldRef field="d{i}"/><FieldRef field="d{i}"/></Apply>')
                for i in range(7)
            ),
        ),
        "not supported|20 factors",
    ),
    "an unknown encoding": (b'<?xml version="1.0" encoding="nonsense"?><PMML/>', "encoding"),
    "text that is not UTF-8": (b"<PMML>\xff</PMML>", "line 1"),
    "a truncated file": (FILES["powers"][0][:-20], "not well-formed XML, at line"),
    "another root": (b"<html/>", "not PMML"),
    "no bytes": (b"", "line 1"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_little_memory(name: str) -> None:
    content, message = HOSTILE[name]
    before = getrusage(RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidInput, match=message) as caught:
        READER.read(content, {})
    assert "root:" not in caught.value.message
    assert getrusage(RUSAGE_SELF).ru_maxrss - before < 250 << 10  # kB


CHANGED = [PmmlExport().write(version_of("indicators of gaps"), {}), *(FILES[name][0] for name in ("a term", "powers"))]


@given(
    st.sampled_from(CHANGED),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(32, 126)), min_size=1, max_size=6),
)
@settings(max_examples=150, deadline=None)
def test_changed_bytes_give_a_model_or_a_refusal(content: bytes, changes: list[tuple[int, int]]) -> None:
    changed = bytearray(content)
    for place, value in changes:
        changed[place % len(changed)] = value
    with suppress(InvalidInput):
        READER.read(bytes(changed), {})


ATTRIBUTES = st.sampled_from(
    [
        "-1",
        "0",
        "1e308",
        "",
        "x",
        "temp",
        "rain",
        "region",
        "true",
        "isMissing",
        "if",
        "+",
        "*",
        "pow",
        "asIs",
        "north",
        "20",
    ]
)


@given(st.lists(st.tuples(st.integers(0, 200), ATTRIBUTES), min_size=1, max_size=4), st.sampled_from(CHANGED))
@settings(max_examples=150, deadline=None)
def test_changed_attributes_give_a_model_or_a_refusal(changes: list[tuple[int, str]], content: bytes) -> None:
    parts = content.decode().split('"')
    for place, value in changes:
        parts[(2 * place + 1) % (len(parts) - 1)] = value
    with suppress(InvalidInput):
        READER.read('"'.join(parts).encode(), {})


def test_only_xml_with_the_root_pmml_is_taken_for_pmml() -> None:
    assert READER.matches(CHANGED[0])
    assert READER.matches(b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- made by hand --><p:PMML xmlns:p="x">')
    assert not any(READER.matches(content) for content in (b"", b"{}", b"<html/>", b"<PMMLX/>", b"PMML"))


def test_a_level_that_xml_cannot_hold_is_refused_when_writing() -> None:
    table = TableSchema((Column("word", "category", ("a", "b\x01")), Column("x")), (Column("y"),))
    with pytest.raises(NotExportable, match="XML cannot hold a character"):
        PmmlExport().write(version_of_table(table, 30), {})
