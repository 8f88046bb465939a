"""PMML import: Linserve's files give the exported model again, and others predict the values of their formulas."""

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported import TABLES, centred_version, rows_with_gaps, version_of
from pmml_evaluator import evaluate
from portables import factors, predictions

from app.errors import InvalidInput
from app.exchange.pmml.reader import PmmlImport
from app.exchange.pmml.writer import PmmlExport
from app.exchange.portable import PortableModel

READER = PmmlImport()
FOLDER = Path(__file__).parent / "pmml"


@pytest.mark.parametrize("name", TABLES)
def test_a_model_that_linserve_wrote_comes_back_equal(name: str) -> None:
    version = version_of(name)
    expected = PortableModel.of(version)
    imported = READER.read(PmmlExport().write(version, {}), {})
    found = imported.portable
    assert [replace(column, fill=None) for column in found.table.features] == [
        replace(column, fill=None) for column in expected.table.features
    ]
    assert found.targets == expected.targets
    coefficients = dict(zip(map(str, factors(found)), found.coef.T.tolist(), strict=True))
    wanted = dict(zip(map(str, factors(expected)), expected.coef.T.tolist(), strict=True))
    assert {term: coefficients.pop(term) for term in wanted} == wanted
    assert not np.any(list(coefficients.values()))  # A feature in no term has the coefficient 0.
    rows = rows_with_gaps(version)
    np.testing.assert_allclose(predictions(found, rows), predictions(expected, rows), rtol=1e-14)
    assert imported.warnings == ()
    assert imported.source.startswith("PMML Linserve")


def test_a_model_in_centred_form_comes_back_equal() -> None:
    expected = PortableModel.of(centred_version())
    found = READER.read(PmmlExport().write(centred_version(), {}), {}).portable
    assert found.centre is not None
    assert found.start is not None
    assert expected.centre is not None
    np.testing.assert_array_equal(found.centre, expected.centre)
    np.testing.assert_array_equal(found.start, expected.start)
    np.testing.assert_array_equal(found.coef, expected.coef)


FIELDS = """<DataField name="temp" optype="continuous" dataType="double"/>
<DataField name="rain" optype="continuous" dataType="double"/>
<DataField name="region" optype="categorical" dataType="string"><Value value="north"/><Value value="south"/></DataField>
<DataField name="grade" optype="categorical" dataType="integer"><Value value="1"/><Value value="2"/></DataField>
<DataField name="day" optype="continuous" dataType="date"/>
<DataField name="y" optype="continuous" dataType="double"/>"""
NAMES = ("temp", "rain", "region", "grade", "day")


def pmml(
    table: str, derived: str = "", fields: str = FIELDS, *, mining: str = "", model: str = "", after: str = ""
) -> bytes:
    """Return a file with one RegressionModel."""
    schema = mining or "".join(f'<MiningField name="{name}"/>' for name in NAMES)
    return f"""<PMML xmlns="http://www.dmg.org/PMML-4_4" version="4.4"><Header/>
<DataDictionary>{fields}</DataDictionary>
<TransformationDictionary>{derived}</TransformationDictionary>
<RegressionModel functionName="regression" {model}>
<MiningSchema>{schema}<MiningField name="y" usageType="target"/></MiningSchema>{after}
<RegressionTable intercept="1.5">{table}</RegressionTable></RegressionModel></PMML>""".encode()


def field(name: str, expression: str) -> str:
    return f'<DerivedField name="{name}" optype="continuous" dataType="double">{expression}</DerivedField>'


def numeric(name: str, coefficient: float = 2.0, exponent: int = 1) -> str:
    return f'<NumericPredictor name="{name}" coefficient="{coefficient!r}" exponent="{exponent}"/>'


SCALED = field(
    "scaled",
    '<Apply function="/"><Apply function="-"><FieldRef field="temp"/><Constant>20</Constant></Apply>'
    "<Constant>4</Constant></Apply>",
)
LINE = field(
    "line",
    '<NormContinuous field="rain"><LinearNorm orig="10" norm="0"/><LinearNorm orig="30" norm="1"/></NormContinuous>',
)
ROWS: list[dict[str, Any]] = [
    {"temp": 17.5, "rain": 44.0, "region": "north", "grade": 1, "day": "2020-03-01"},
    {"temp": 21.0, "rain": 31.5, "region": "south", "grade": 2, "day": "1999-12-31"},
]
LEVELS = {
    "north": '<CategoricalPredictor name="region" value="north" coefficient="4"/>',
    "south": '<CategoricalPredictor name="region" value="south" coefficient="-3"/>',
}
FILES: Mapping[str, tuple[bytes, Any]] = {
    "powers": (pmml(numeric("temp", 2, 2) + numeric("rain")), lambda r: 2 * r["temp"] ** 2 + 2 * r["rain"]),
    "scaled fields": (
        pmml(numeric("scaled") + numeric("line", 5.0), SCALED + LINE),
        lambda r: 2 * (r["temp"] - 20) / 4 + 5 * (r["rain"] - 10) / 20,
    ),
    "a power of a scaled field": (pmml(numeric("scaled", 3.0, 2), SCALED), lambda r: 3 * ((r["temp"] - 20) / 4) ** 2),
    "a term": (
        pmml('<PredictorTerm coefficient="0.5"><FieldRef field="temp"/><FieldRef field="rain"/></PredictorTerm>'),
        lambda r: 0.5 * r["temp"] * r["rain"],
    ),
    "one level of two": (pmml(LEVELS["south"]), lambda r: -3.0 * (r["region"] == "south")),
    "each level": (pmml("".join(LEVELS.values())), lambda r: {"north": 4.0, "south": -3.0}[r["region"]]),
    "a level that is a number": (
        pmml('<CategoricalPredictor name="grade" value="2.0" coefficient="7"/>'),
        lambda r: 7.0 * (r["grade"] == 2),
    ),
    "days of another year": (
        pmml(
            numeric("days"),
            field(
                "days", '<Apply function="dateDaysSinceYear"><FieldRef field="day"/><Constant>1960</Constant></Apply>'
            ),
        ),
        lambda r: 2.0 * (dt.date.fromisoformat(r["day"]) - dt.date(1960, 1, 1)).days,
    ),
    "an indicator of a level in a product": (
        pmml(
            '<PredictorTerm coefficient="2"><FieldRef field="south"/><FieldRef field="temp"/></PredictorTerm>',
            field("south", '<NormDiscrete field="region" value="south"/>'),
        ),
        lambda r: 2.0 * (r["region"] == "south") * r["temp"],
    ),
    "a rescaled target": (
        pmml(numeric("temp"), after='<Targets><Target field="y" rescaleFactor="2" rescaleConstant="10"/></Targets>'),
        lambda r: 4.0 * r["temp"] + 1.5 * 2 + 10 - 1.5,
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_predicts_the_values_of_its_formula(name: str) -> None:
    content, formula = FILES[name]
    portable = READER.read(content, {}).portable
    names = [column.name for column in portable.table.features]
    found = predictions(portable, [{name: row[name] for name in names} for row in ROWS])
    np.testing.assert_allclose(found[:, 0], [1.5 + formula(row) for row in ROWS], rtol=1e-13)


@pytest.mark.parametrize("name", ["columns", "poly", "multi"])
def test_a_file_of_sklearn2pmml_predicts_what_scikit_learn_does(name: str) -> None:
    case = json.loads((FOLDER / "predictions.json").read_text())[name]
    imported = READER.read((FOLDER / f"sklearn2pmml_{name}.pmml").read_bytes(), {})
    portable = imported.portable
    names = [column.name for column in portable.table.features]
    found = predictions(portable, [{name: row[name] for name in names} for row in case["rows"]])
    expected = np.array(case["predictions"]).reshape(len(found), -1)
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    assert imported.source.startswith("PMML SkLearn2PMML")


def test_lost_digits_of_powers_of_a_scaled_field_are_a_warning_or_a_refusal() -> None:
    def scaled(mean: float) -> bytes:
        difference = f'<Apply function="-"><FieldRef field="temp"/><Constant>{mean}</Constant></Apply>'
        quotient = f'<Apply function="/">{difference}<Constant>4</Constant></Apply>'
        return pmml(numeric("scaled", 3.0, 3), field("scaled", quotient))

    others = READER.read(scaled(20), {}).warnings
    (warning,) = set(READER.read(scaled(9e3), {}).warnings).difference(others)
    assert "Predictions may differ from those of the file by about 2e-05 of their range" in warning
    with pytest.raises(InvalidInput, match="far from 0 compared with their spread"):
        READER.read(scaled(1e9), {})


def test_powers_of_a_field_that_is_only_centred_have_a_warning_with_the_spread_that_is_enough() -> None:
    difference = '<Apply function="-"><FieldRef field="temp"/><Constant>9e5</Constant></Apply>'
    (warning,) = (
        text
        for text in READER.read(pmml(numeric("centred", 3.0, 2), field("centred", difference)), {}).warnings
        if "lose digits" in text
    )
    assert "subtracts numbers of up to 9e+05" in warning
    assert "vary by less than about 3e+02" in warning


def test_levels_of_the_dictionary_are_levels_of_the_model() -> None:
    imported = READER.read(pmml(LEVELS["south"]), {})
    (column,) = imported.portable.table.features
    assert column.levels == ("north", "south")
    assert imported.portable.columns == ("region[south]",)
    assert any("missing value of a category has no effect" in warning for warning in imported.warnings)
    assert any("does not use" in warning and "rain" in warning for warning in imported.warnings)


RANGES = FIELDS.replace(
    'dataType="double"/>', 'dataType="double"><Interval closure="openOpen" leftMargin="0"/></DataField>'
)
INVALID = FIELDS.replace('dataType="double"/>', 'dataType="double"><Value value="-1" property="invalid"/></DataField>')
OUTPUT = """<Output><OutputField name="y"/><OutputField name="e" feature="transformedValue"><Apply function="exp">
<FieldRef field="y"/></Apply></OutputField></Output>"""


@pytest.mark.parametrize("fields", [RANGES, INVALID])
def test_ranges_of_fields_are_a_warning(fields: str) -> None:
    assert READER.read(pmml(numeric("temp"), fields=FIELDS), {}).warnings[0].startswith("The model does not use")
    first, *_ = READER.read(pmml(numeric("temp"), fields=fields), {}).warnings
    assert first.startswith("In the file, values outside the ranges of these fields are invalid.")
    assert first.endswith(': "temp".')
    as_it_is = '<MiningField name="temp" invalidValueTreatment="asIs"/>'
    assert READER.read(pmml(numeric("temp"), fields=fields, mining=as_it_is), {}).warnings == ()


def test_a_replaced_level_and_calculated_outputs_are_warnings() -> None:
    mining = '<MiningField name="region" invalidValueTreatment="asMissing" missingValueReplacement="north"/>'
    warnings = READER.read(pmml(LEVELS["south"], mining=mining, after=OUTPUT), {}).warnings
    assert "an unknown level is replaced. Here it is an error" in warnings[0]
    assert warnings[1] == 'The file calculates these outputs from the prediction. Here they are left out: "e".'


def test_replacements_of_missing_values_become_constants_of_gaps() -> None:
    mining = (
        '<MiningField name="temp" missingValueReplacement="20.5" missingValueTreatment="asMean"/>'
        '<MiningField name="region" missingValueReplacement="south"/>'
    )
    imported = READER.read(pmml(numeric("temp") + LEVELS["south"], mining=mining), {})
    temp, region = imported.portable.table.features
    assert (temp.missing, temp.fill) == ("fill", 20.5)
    assert (region.missing, region.fill) == ("fill", "south")
    assert predictions(imported.portable, [{"temp": None, "region": None}])[0, 0] == 1.5 + 2 * 20.5 - 3


def test_an_indicator_of_missing_values_is_kept() -> None:
    derived = field("rain filled", '<FieldRef field="rain" mapMissingTo="3"/>') + field(
        "rain missing",
        '<Apply function="if"><Apply function="isMissing"><FieldRef field="rain"/></Apply>'
        "<Constant>1</Constant><Constant>0</Constant></Apply>",
    )
    portable = READER.read(pmml(numeric("rain filled") + numeric("rain missing", 9.0), derived), {}).portable
    assert portable.columns == ("rain", "rain[missing]")
    assert predictions(portable, [{"rain": None}, {"rain": 4.0}])[:, 0].tolist() == [1.5 + 6 + 9, 1.5 + 8]


def test_several_models_are_several_targets_and_may_be_renamed() -> None:
    content = PmmlExport().write(version_of("numbers"), {})
    assert READER.read(content, {}).portable.targets == ("mass", "size")
    assert READER.read(content, {"targets": "u,v"}).portable.targets == ("u", "v")
    with pytest.raises(InvalidInput, match="2 models, and `targets` has 1 names"):
        READER.read(content, {"targets": "u"})


def test_the_independent_evaluator_agrees_with_the_formulas() -> None:
    content, formula = FILES["a term"]
    schema_free = [{"temp": row["temp"], "rain": row["rain"]} for row in ROWS]
    assert evaluate(content, schema_free)[:, 0].tolist() == [1.5 + formula(row) for row in ROWS]
