"""Rows of words, booleans and dates get the same predictions from every format."""

from dataclasses import replace
from typing import Any

import httpx
import orjson
import pyarrow as pa
import pyarrow.compute
import pytest
from mixed import FEATURES, TABLE, publish, rows_of, version_of_table
from service import Service
from tables import MEDIA_TYPES, written

from app.data.columns.schema import Column, LeftOut, TableSchema

JSON, CSV = "application/json", "text/csv"
ROWS = rows_of(FEATURES, 12, seed=4)
OBJECTS = [dict(zip(ROWS, row, strict=True)) for row in zip(*ROWS.values(), strict=True)]
PATH = "/models/kinds-birds/predict"


@pytest.fixture(scope="module")
def birds(service: Service) -> Service:
    version = version_of_table(replace(TABLE, left_out=(LeftOut("", "index"), LeftOut("ring", "identifier"))))
    publish(service.models, version, "kinds-birds")
    return service


def ask(service: Service, content: Any, into: str, *, path: str = PATH, **query: str) -> httpx.Response:
    headers = {"content-type": into, "accept": JSON}
    return service.client.post(path, params=query, content=content, headers=headers)


def masses(answer: httpx.Response) -> list[float | None]:
    assert answer.status_code == 200, answer.text
    return [row["mass"] if isinstance(row, dict) else row[0] for row in answer.json()["predictions"]]


def expected(service: Service) -> list[float | None]:
    return masses(service.client.post(PATH, json={"instances": OBJECTS}))


def test_objects_arrays_and_a_list_of_records_are_rows(birds: Service) -> None:
    found = expected(birds)
    assert len(set(found)) == len(OBJECTS)
    arrays = [[*row.values()] for row in OBJECTS]
    assert masses(birds.client.post(PATH, json={"instances": arrays})) == found
    assert masses(birds.client.post(PATH, json={"instances": arrays[0]})) == found[:1]
    assert masses(birds.client.post(PATH, json=OBJECTS)) == found
    assert masses(birds.client.post(PATH, json={"columns": [*ROWS], "data": arrays})) == found
    assert masses(ask(birds, orjson.dumps(OBJECTS), JSON, interval="0.9")) == found


@pytest.mark.parametrize("form", MEDIA_TYPES)
def test_a_file_with_the_columns_of_the_training_rows_is_one_to_predict_for(birds: Service, form: str) -> None:
    table = pa.table({"ring": [f"r{n}" for n in range(12)], "mass": list(range(12)), **ROWS})
    assert masses(ask(birds, written(table, form), MEDIA_TYPES[form])) == expected(birds)
    kept = ask(birds, written(table, form), MEDIA_TYPES[form], keep="ring,species,seen").json()["predictions"]
    assert [row["ring"] for row in kept] == [f"r{n}" for n in range(12)]
    assert [row["species"] for row in kept] == ROWS["species"]
    assert [row["seen"] for row in kept] == ROWS["seen"]
    refused = ask(birds, written(table, form), MEDIA_TYPES[form], keep="age")
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["parameter"] == "keep"


@pytest.mark.parametrize("form", ["arrow", "parquet"])
def test_columns_of_files_may_have_other_types(birds: Service, form: str) -> None:
    columns: dict[str, Any] = {name: pa.array(values) for name, values in ROWS.items()}
    columns["species"] = columns["species"].dictionary_encode()
    columns["island"] = columns["island"].cast(pa.large_string())
    columns["wild"] = columns["wild"].cast(pa.int8())
    columns["seen"] = columns["seen"].cast(pa.timestamp("ms")).cast(pa.timestamp("ms", "UTC"))
    columns["age"] = pa.compute.cast(columns["age"], pa.float32())
    ages = columns["age"].to_pylist()
    found = masses(
        birds.client.post(PATH, json={"instances": [{**a, "age": b} for a, b in zip(OBJECTS, ages, strict=True)]})
    )
    content = written(pa.table(columns), form)
    assert masses(ask(birds, content, MEDIA_TYPES[form])) == found
    kept = ask(birds, content, MEDIA_TYPES[form], keep="species").json()["predictions"]
    assert [row["species"] for row in kept] == ROWS["species"]
    wrong = pa.table(columns | {"seen": pa.array([3] * 12, pa.int64())})
    assert ask(birds, written(wrong, form), MEDIA_TYPES[form]).json()["errors"][0]["column"] == "seen"


def lines_of(separator: str, **changed: list[Any]) -> str:
    table = {**ROWS, **changed}
    rows = [separator.join(map(str, row)) for row in [table, *zip(*table.values(), strict=True)]]
    return "\n".join(rows) + "\n"


def test_text_may_come_in_another_dialect_than_the_training_rows(birds: Service) -> None:
    commas = [str(age).replace(".", ",") for age in ROWS["age"]]
    for content, query in [
        (lines_of(","), {}),
        (lines_of(";", age=commas), {}),
        (lines_of(";", age=commas), {"sep": "semicolon", "decimal": ","}),
        ("a title\n" + lines_of("\t"), {"skip": "1", "sep": "tab"}),
        (lines_of("|", wild=["yes" if wild else "no" for wild in ROWS["wild"]]), {}),
        (lines_of(",", seen=["/".join(reversed(day.split("-"))) for day in ROWS["seen"]]), {"dates": "dmy"}),
    ]:
        assert masses(ask(birds, content, CSV, **query)) == expected(birds), query
    assert masses(ask(birds, lines_of(",").encode("utf-16"), CSV)) == expected(birds)
    assert ask(birds, lines_of(","), CSV, decimal="x").json()["errors"][0]["parameter"] == "decimal"
    assert ask(birds, orjson.dumps(OBJECTS), JSON, sep=",").json()["errors"][0]["parameter"] == "sep"


def test_a_column_that_passes_through_is_not_read(birds: Service) -> None:
    codes = ["NA", "", '"NA"', "null", *map(str, range(8))]
    answer = ask(birds, lines_of(",", code=codes), CSV, keep="code").json()["predictions"]
    assert [row["code"] for row in answer] == [code.strip('"') for code in codes]
    answer = ask(birds, lines_of(",", code=codes), CSV).json()
    assert answer["detail"].startswith('There is 1 column that is not a feature: "code". Expected "')
    assert all(f'"{name}"' in answer["detail"] for name in ROWS)


@pytest.mark.parametrize("form", [JSON, *MEDIA_TYPES.values()])
def test_rows_with_gaps_and_unseen_levels_have_no_prediction_and_the_response_says_why(
    birds: Service, form: str
) -> None:
    rows = {name: [*values] for name, values in ROWS.items()}
    rows["species"][:2] = ["Emperor", None]
    rows["seen"][2] = None
    rows["age"][4:6] = [None, None]
    table = pa.table(rows)
    if form == JSON:
        content, query = orjson.dumps({"instances": table.to_pylist()}), {"missing": "null", "unknown": "null"}
    else:
        content, query = written(table, next(name for name, kind in MEDIA_TYPES.items() if kind == form)), {}
    answer = ask(birds, content, form, **query)
    found, whole = masses(answer), expected(birds)
    assert found == [None, None, None, whole[3], None, None, *whole[6:]]
    assert answer.headers["linserve-missing-rows"] == "5"
    why = answer.headers["linserve-missing-reasons"]
    assert why.startswith('gaps: "age" 2, ')
    assert '"species" 1' in why
    assert '"seen" 1' in why
    assert why.endswith('unseen levels: "species" 1')
    replaced = ask(birds, content, form, missing="null", unknown="reference")
    assert replaced.headers["linserve-missing-rows"] == "4"
    assert masses(replaced)[0] is not None
    for refused in ({"missing": "refuse", "unknown": "null"}, {"missing": "null", "unknown": "refuse"}):
        answer = ask(birds, content, form, **refused)
        assert answer.status_code == 422
        at_fault = {
            error.get("column", error.get("pointer", "").rpartition("/")[2]) for error in answer.json()["errors"]
        }
        if refused["missing"] == "refuse":
            assert {"species", "seen"} <= at_fault <= {"species", "seen", "age"}  # "age" is in another batch of Arrow
        else:
            assert at_fault == {"species"}


def test_an_unseen_level_is_in_the_response_and_not_in_the_log(birds: Service) -> None:
    objects = [{**OBJECTS[0], "species": "Zzyzx penguin"}]
    before = len(birds.log.read_bytes())  # Other tests share this service, and the log may have levels that they sent.
    for content, form in [
        (orjson.dumps({"instances": objects}), JSON),
        (orjson.dumps(objects[0]), MEDIA_TYPES["ndjson"]),
    ]:
        answer = ask(birds, content, form, unknown="refuse")
        assert answer.status_code == 422
        (error,) = answer.json()["errors"]
        assert "Zzyzx penguin" in error["detail"]
        assert '"Gentoo"' in error["detail"]
        birds.request_record(answer)
    log = birds.log.read_bytes()[before:]
    assert b"Zzyzx" not in log
    assert b"Gentoo" not in log


def test_intervals_explanation_and_extrapolation_are_about_the_columns_of_the_design(birds: Service) -> None:
    options = {"interval": 0.9, "confidence": 0.9, "explain": True, "extrapolation": True, "missing": "null"}
    rows = [*OBJECTS, {**OBJECTS[0], "wild": None}]
    found = birds.client.post(PATH, json={"instances": rows, **options}).json()
    assert [*found["contributions"][0]["mass"]] == [*TABLE.encoded_features]
    assert found["contributions"][-1]["mass"]["age"] is None
    prediction = found["baseline"]["mass"] + sum(found["contributions"][0]["mass"].values())
    assert prediction == pytest.approx(found["predictions"][0]["mass"])
    low, high = found["intervals"][0]["mass"]
    assert low < found["predictions"][0]["mass"] < high
    assert found["extrapolation"][-1] is None
    far = birds.client.post(PATH, json={"instances": [{**OBJECTS[0], "seen": "2030-01-01"}], **options}).json()
    assert far["extrapolation"][0]["outside"] == ["seen"]
    table = ask(birds, written(pa.table(ROWS), "arrow"), MEDIA_TYPES["arrow"], interval="0.9").json()["predictions"]
    assert [row["mass_upper"] for row in table] == pytest.approx(
        [bounds["mass"][1] for bounds in found["intervals"][:-1]]
    )


@pytest.mark.parametrize("missing", ["indicator", "fill"])
def test_gaps_are_filled_as_in_training(service: Service, missing: Any) -> None:
    fills: dict[str, Any] = {"species": "Gentoo", "age": 40.25, "wild": 1.0, "island": "Dream", "seen": 14000.0}
    features = tuple(replace(column, missing=missing, fill=fills[column.name]) for column in FEATURES)
    version = version_of_table(replace(TABLE, features=features), gaps=5)
    publish(service.models, version, f"kinds-{missing}")
    path = f"/models/kinds-{missing}/predict"
    rows = {name: [*values[:-1], None] for name, values in ROWS.items()}
    table = pa.table(rows)
    found = masses(service.client.post(path, json={"instances": table.to_pylist()}))
    assert None not in found
    for form in MEDIA_TYPES:
        answer = ask(service, written(table, form), MEDIA_TYPES[form], path=path, missing="refuse")
        assert masses(answer) == found
        assert answer.headers["linserve-missing-rows"] == "0"
        assert "linserve-missing-reasons" not in answer.headers
    if missing == "fill":
        filled = {"species": "Gentoo", "age": 40.25, "wild": True, "island": "Dream", "seen": "2008-05-01"}
        assert masses(service.client.post(path, json={"instances": [filled]})) == [found[-1]]


def test_a_column_of_weights_is_read_next_to_words(birds: Service) -> None:
    weights = [1.0 + n for n in range(12)]
    options = {"interval": 0.9, "instance_weights": weights}
    whole = birds.client.post(PATH, json={"instances": OBJECTS, **options}).json()["intervals"]
    table = pa.table({**ROWS, "w": weights})
    for form in MEDIA_TYPES:
        answer = ask(birds, written(table, form), MEDIA_TYPES[form], interval="0.9", instance_weights="w", keep="w")
        found = [[row["mass_lower"], row["mass_upper"]] for row in answer.json()["predictions"]]
        assert found == [bounds["mass"] for bounds in whole]
    refused = ask(birds, lines_of(","), CSV, interval="0.9", instance_weights="species")
    assert refused.json()["errors"][0]["parameter"] == "instance_weights"


def test_numbers_sent_as_strings_are_read_only_in_a_column_that_was_trained_with_them(service: Service) -> None:
    features = Column("a", strings=True), Column("b")
    publish(service.models, version_of_table(TableSchema(features, (Column("mass"),))), "kinds-strings")
    publish(
        service.models, version_of_table(TableSchema((Column("a"), Column("b")), (Column("mass"),))), "kinds-numbers"
    )
    words = Column("w", "category", ("x", "y"))
    publish(service.models, version_of_table(TableSchema((*features[1:], words), (Column("mass"),))), "kinds-words")
    path = "/models/kinds-strings/predict"
    found = masses(service.client.post(path, json={"instances": [[1.5, 2], [3, 4]]}))
    assert masses(service.client.post(path, json={"instances": [["1.5", 2], ["3", 4]]})) == found
    for model, rows in (("strings", [[1.5, "2"]]), ("numbers", [["1.5", 2]]), ("words", [["1.5", "x"]])):
        refused = service.client.post(f"/models/kinds-{model}/predict", json={"instances": rows})
        assert "Expected a number, found a string. Send it without quotes." in refused.json()["detail"]
    for form in ("ndjson", "arrow", "parquet"):
        content = written(pa.table({"a": ["1.5", "3"], "b": [2, 4]}), form)
        assert masses(ask(service, content, MEDIA_TYPES[form], path=path)) == found
        wrong = written(pa.table({"a": ["1.5", "x"], "b": [2, 4]}), form)
        assert ask(service, wrong, MEDIA_TYPES[form], path=path).status_code == 422
        assert ask(service, content, MEDIA_TYPES[form], path="/models/kinds-numbers/predict").status_code == 422
        mixed = written(pa.table({"w": ["x", "y"], "b": [None, "4"]}), form)
        refused = ask(service, mixed, MEDIA_TYPES[form], path="/models/kinds-words/predict").json()
        assert (refused["errors"][0]["row"], refused["errors"][0]["column"]) == (2, "b")
        assert "found a string" in refused["detail"]


def test_a_category_with_many_levels_is_predicted_with_in_pieces(service: Service) -> None:
    levels = tuple(f"{n:04d}" for n in range(300))
    table = TableSchema((Column("name", "category", levels), Column("x")), (Column("mass"),))
    publish(service.models, version_of_table(table, rows=1000), "kinds-wide")
    rows = {"name": [levels[n % 300] for n in range(1000)], "x": [n / 7 for n in range(1000)]}
    path = "/models/kinds-wide/predict"
    objects = [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]
    found = masses(service.client.post(path, json={"instances": objects}))
    assert len(set(found)) == 1000
    for content, form in [(written(pa.table(rows), "arrow"), MEDIA_TYPES["arrow"]), (orjson.dumps(objects), JSON)]:
        again = masses(ask(service, content, form, path=path, missing="null"))
        assert again == pytest.approx(found, rel=1e-12)
    assert masses(service.client.post(path, json={"instances": objects[5:6]})) == pytest.approx(found[5:6], rel=1e-12)
