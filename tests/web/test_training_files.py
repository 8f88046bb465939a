"""Training from files: every format, compressed or not."""

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from service import INPUTS, TARGETS, Service
from tables import ENCODINGS, MEDIA_TYPES, gzip_bomb, written

FEATURES, NAMES = ["temp", "rainfall", "humidity"], ["apples", "oranges"]
YIELDS = pa.table(
    dict(
        zip(
            ["note", *NAMES, *FEATURES],
            [["x"] * 15, *zip(*TARGETS, strict=True), *zip(*INPUTS, strict=True)],
            strict=True,
        )
    )
)
QUERY = {"targets": ",".join(NAMES), "features": ",".join(FEATURES), "promote": "never"}


# Bodies are decompressed before their format matters, so that two formats show it.
@pytest.mark.parametrize(
    ("form", "encoding"),
    [
        *((form, "identity") for form in MEDIA_TYPES),
        *((form, encoding) for form in ("csv", "parquet") for encoding in ("gzip", "zstd")),
        *(
            pytest.param(form, encoding, marks=pytest.mark.slow)
            for form in MEDIA_TYPES
            for encoding in ("gzip", "zstd")
            if form not in ("csv", "parquet")
        ),
    ],
)
def test_a_file_of_any_format_trains_the_same_model_as_its_rows_in_json(
    service: Service, form: str, encoding: str
) -> None:
    answer = service.post_training(
        params=QUERY,
        content=ENCODINGS[encoding](written(YIELDS, form)),
        headers={"content-type": MEDIA_TYPES[form], "content-encoding": encoding},
    )
    assert answer.json()["status"] == "succeeded", answer.text
    trained = service.client.get(f"/models/crop-yield/versions/{answer.json()['version']}").json()
    shipped = service.client.get("/models/crop-yield/versions/1").json()
    for target in NAMES:
        assert trained["coefficients"][target] == pytest.approx(shipped["coefficients"][target], rel=1e-9)


@pytest.mark.parametrize("form", ["json", *MEDIA_TYPES])
def test_rows_with_a_missing_value_are_dropped_and_counted_on_request(service: Service, form: str) -> None:
    rows = [*INPUTS, [None, 1, 1], [5, None, 5]]
    targets = [*TARGETS, [3, 4], [None, 5]]
    if form == "json":
        job = service.train(instances=rows, targets=targets, missing="drop", promote="never")
    else:
        columns = [pa.array(column, pa.float64()) for column in (*zip(*rows, strict=True), *zip(*targets, strict=True))]
        table = pa.table(dict(zip([*FEATURES, *NAMES], columns, strict=True)))
        answer = service.post_training(
            params={**QUERY, "missing": "drop"},
            content=written(table, form),
            headers={"content-type": MEDIA_TYPES[form]},
        )
        job = answer.json()
    assert job["status"] == "succeeded", job
    card = service.client.get(f"/models/crop-yield/versions/{job['version']}").json()
    assert (card["rows"], card["dropped_rows"]) == (15, 2)
    assert "2 row(s) were dropped" in card["warnings"][0]


@pytest.mark.parametrize("form", MEDIA_TYPES)
def test_a_missing_value_fails_the_job_with_its_place_on_request(service: Service, form: str) -> None:
    table = YIELDS.set_column(3, "temp", pa.array([1.0, None, *range(13)], pa.float64()))
    answer = service.post_training(
        params={**QUERY, "missing": "refuse"},
        content=written(table, form),
        headers={"content-type": MEDIA_TYPES[form]},
    )
    assert answer.json()["status"] == "failed", answer.text
    (place,) = answer.json()["error"]["errors"]
    assert (place["row"], place["column"]) == (3 if form == "csv" else 2, "temp")


@pytest.mark.parametrize("form", ["arrow", "parquet", "ndjson"])
def test_a_file_of_another_format_than_its_content_type_is_refused_at_once(service: Service, form: str) -> None:
    answer = service.client.post(
        "/train", params=QUERY, content=b"a,b\n1,2\n", headers={"content-type": MEDIA_TYPES[form]}
    )
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:linserve:problem:invalid-input"


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "zstd"])
def test_a_body_may_be_compressed_in_several_members(service: Service, encoding: str) -> None:
    content = written(YIELDS, "csv")
    compress = ENCODINGS[encoding]
    answer = service.post_training(
        params=QUERY,
        content=b"".join(compress(content[i : i + 40]) for i in range(0, len(content), 40)),
        headers={"content-type": "text/csv", "content-encoding": encoding},
    )
    assert answer.json()["status"] == "succeeded", answer.text


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_large_compressed_body_is_decompressed_to_the_last_byte(service: Service, encoding: str) -> None:
    rows = np.random.default_rng(0).integers(0, 9, size=(40_000, 4))
    content = b"a,b,c,y\n" + b"".join(b"%d,%d,%d,%d\n" % tuple(row) for row in rows)
    answer = service.post_training(
        params={"model": "inflated", "targets": "y"},
        content=ENCODINGS[encoding](content),
        headers={"content-type": "text/csv", "content-encoding": encoding},
    )
    assert answer.json()["progress"]["rows"] == 40_000, answer.text


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_compressed_body_is_refused_when_it_exceeds_the_decompressed_limit(service: Service, encoding: str) -> None:
    bomb = gzip_bomb(b"0", 50) if encoding == "gzip" else ENCODINGS["zstd"](b"0" * 50_000_000)
    spool = service.state / "spool"
    before = set(spool.glob("*"))  # uploads of jobs that still run
    answer = service.client.post(
        "/train?targets=y", content=bomb, headers={"content-type": "text/csv", "content-encoding": encoding}
    )
    assert len(bomb) < 100_000
    assert answer.status_code == 413
    assert set(spool.glob("*")) <= before


TABLES = Path(__file__).parents[1] / "tables"
NUMERIC = (
    "Row 1 holds only numbers, but the names of the columns were expected. Add a first row with the names; or add "
    "`header=none`, which names the columns c1, c2, ..., or `header=names` if the numbers are the names."
)


def posted(service: Service, content: bytes | str, form: str, model: str = "files", **query: str) -> httpx.Response:
    if model == "files":  # shared by many tests, whose files have different columns
        query = {"schema": "infer", **query}
    return service.post_training(
        params={"model": model, "targets": "y", **query},
        content=content,
        headers={"content-type": MEDIA_TYPES[form]},
    )


def card_of(service: Service, job: httpx.Response) -> dict[str, Any]:
    assert job.json()["status"] == "succeeded", job.text
    card: dict[str, Any] = service.client.get(f"/models/{job.json()['model']}/versions/{job.json()['version']}").json()
    assert card["warnings"] == job.json()["warnings"]
    return card


def failure(job: httpx.Response) -> tuple[str, list[dict[str, Any]]]:
    assert job.status_code == 200, job.text
    assert job.json()["status"] == "failed", job.text
    error = job.json()["error"]
    assert error["status"] == 422
    return error["detail"], error.get("errors", [])


def rounding(warnings: list[str]) -> list[str]:
    return [warning for warning in warnings if "2^53" in warning]


@pytest.mark.parametrize(
    ("name", "form", "column", "row"),
    [
        ("int-beyond-2_5e53.csv", "csv", "id", 2),
        ("arrow-uint64-max.arrow", "arrow", "z", 1),
        ("parquet-uint64-max.parquet", "parquet", "z", 1),
    ],
)
def test_rounded_integers_cause_a_warning_in_the_job_and_the_card(
    service: Service, name: str, form: str, column: str, row: int
) -> None:
    card = card_of(service, posted(service, (TABLES / name).read_bytes(), form))
    (warning,) = rounding(card["warnings"])
    assert f'"{column}"' in warning
    assert f"first in row {row}." in warning


def test_rounded_integers_in_json_cause_a_warning(service: Service) -> None:
    big = 2**53 + 1
    job = service.train(
        model="big",
        instances=[{"id": index + (index == 2) * big, "x": index} for index in range(6)],
        targets=[[index] for index in range(6)],
        target_names=["y"],
        sample_weights=[1, 1, 1, big, 1, 1],
    )
    assert job["status"] == "succeeded", job
    first, second = rounding(job["warnings"])
    assert "first in row 4." in second
    assert '"id"' in first
    assert "first in row 3." in first
    lines = "".join(f'{{"id":{index + (index == 2) * big},"x":{index % 3},"y":{index}}}\n' for index in range(6))
    (warning,) = rounding(card_of(service, posted(service, lines, "ndjson"))["warnings"])
    assert "first in row 3." in warning


@pytest.mark.parametrize("form", MEDIA_TYPES)
def test_integers_that_fit_cause_no_warning(service: Service, form: str) -> None:
    table = pa.table({"x": [2**53, 2**60, 3, 1], "z": [1e300 ** (1 / 16), 2.0**70, 1e20, 0.1], "y": [1, 2, 3, 4]})
    assert rounding(card_of(service, posted(service, written(table, form), form))["warnings"]) == []


def test_a_column_that_the_first_line_lacks_is_a_feature(service: Service) -> None:
    content = (TABLES / "ndjson-extra-key-later.ndjson").read_bytes()
    message, (place,) = failure(posted(service, content, "ndjson", missing="refuse"))
    assert message == (
        'Row 1, column "x3": The value is missing: the line has no name "x3". The name first appears in line 5.'
    )
    assert (place["row"], place["column"]) == (1, "x3")
    card = card_of(service, posted(service, content, "ndjson", missing="drop"))
    assert (card["features"], card["rows"], card["dropped_rows"]) == (["x1", "x2", "x3"], 10, 4)
    assert any('"x3" first appears in line 5' in warning for warning in card["warnings"])
    card = card_of(service, posted(service, content, "ndjson", features="x1,x2"))
    assert (card["features"], card["rows"]) == (["x1", "x2"], 14)


def test_an_absent_name_is_a_missing_value_in_any_line(service: Service) -> None:
    first = (TABLES / "ndjson-first-lacks-key-drop.ndjson").read_bytes()
    card = card_of(service, posted(service, first, "ndjson", missing="drop"))
    assert (card["rows"], card["dropped_rows"], sorted(card["features"])) == (13, 1, ["x1", "x2"])
    right = {"x1": 2.0091895890858966, "x2": 0.028985732707793144}
    assert card["coefficients"]["y"] == pytest.approx(right, rel=1e-9)

    later = (TABLES / "ndjson-later-lacks-key.ndjson").read_bytes()
    message, (place,) = failure(posted(service, later, "ndjson", missing="refuse"))
    assert message == 'Row 5, column "x2": The value is missing: the line has no name "x2".'
    assert (place["row"], place["column"]) == (5, "x2")
    card = card_of(service, posted(service, later, "ndjson", missing="drop"))
    assert (card["rows"], card["dropped_rows"]) == (13, 1)


def test_a_name_that_no_line_has_fails_the_job(service: Service) -> None:
    lines = '{"x":1,"y":2}\n{"x":2,"y":3}\n'
    for query in ({"targets": "z"}, {"features": "x,z"}, {"weight": "z"}):
        message, (place,) = failure(posted(service, lines, "ndjson", **query))
        assert message.startswith("Columns are missing: column")
        assert place["column"] == "z"
        assert place["detail"] == 'There is no column "z".'


def test_an_invalid_name_is_refused_with_the_line_in_which_it_first_appears(service: Service) -> None:
    for name in ("intercept", "", "x" * 200, "\n"):
        lines = '{"x":1,"y":2}\n' * 56 + json.dumps({"x": 1, "y": 2, name: 3}) + "\n"
        _, (place,) = failure(posted(service, lines, "ndjson", missing="drop"))
        assert place["row"] == 57
        assert place["detail"].endswith("The name first appears in line 57.")


def test_the_job_checks_the_names_of_ndjson_as_the_request_checks_those_of_other_formats(service: Service) -> None:
    lines = "".join(f'{{"x":{index},"y":{index * index % 7}}}\n' for index in range(9))
    card_of(service, posted(service, lines, "ndjson", model="checked"))
    late = lines + '{"x":1,"y":2,"z":3}\n'
    for query, says in (
        ({"schema": "infer", "terms": "x,nothing"}, "Not all terms can be made"),
        ({"mode": "update", "missing": "drop"}, "other features"),
        ({"schema": "infer", "promote": "if_better", "missing": "drop"}, "other features"),
        ({"schema": "infer", "solver": "gradient_descent", "start": "1", "missing": "drop"}, "other features"),
    ):
        message, _ = failure(posted(service, late, "ndjson", model="checked", **query))
        assert says in message
    assert posted(service, lines, "ndjson", model="unheard-of", mode="update").status_code == 422
    start = posted(service, lines, "ndjson", model="checked", solver="gradient_descent", start="99")
    assert start.status_code == 422
    # Names in another order are the same columns.
    swapped = "".join(f'{{"y":{index * index % 7},"x":{index}}}\n' for index in range(9))
    card = card_of(service, posted(service, '{"y":1}\n' + swapped, "ndjson", "checked", mode="update", missing="drop"))
    assert (card["rows"], card["terms"]) == (18, [])


def test_too_many_names_fail_the_job(service: Service) -> None:
    lines = "".join(json.dumps({f"{line}-{index}": 1 for index in range(5000)}) + "\n" for line in range(3))
    message, _ = failure(posted(service, lines, "ndjson"))
    assert "more than 10000 different names" in message
    assert posted(service, json.dumps(dict.fromkeys(map(str, range(20_000)), 1)), "ndjson").status_code == 422
    wide = "".join(json.dumps({f"{line}-{index}": 1 for index in range(1500)} | {"y": 1}) + "\n" for line in range(2))
    message, places = failure(posted(service, wide, "ndjson", missing="drop"))
    assert places[0]["detail"] == "At most 2000 features are possible."


@pytest.mark.parametrize("number", ["1" + "0" * 400, "9" * 5000, "-1" + "0" * 309])
def test_an_infinite_number_fails_the_job(service: Service, number: str) -> None:
    for content, form in ((f'{{"x":1,"y":2}}\n{{"x":{number},"y":2}}\n', "ndjson"), (f"x,y\n1,2\n{number},2\n", "csv")):
        answer = posted(service, content, form)
        assert answer.status_code in (200, 422)
        assert answer.status_code == 422 or answer.json()["error"]["status"] == 422


def test_a_row_of_numbers_is_a_header_only_with_the_option_header(service: Service) -> None:
    content = (TABLES / "headerless-target-found.csv").read_bytes()
    service.finish_jobs()
    before = service.client.get("/jobs").json()
    for query in ({"targets": "62.634"}, {}, {"targets": "c3"}):
        refused = posted(service, content, "csv", **query)
        assert (refused.status_code, refused.json()["detail"]) == (422, NUMERIC)
        assert refused.json()["errors"][0]["row"] == 1
    assert service.client.get("/jobs").json()["items"] == before["items"]

    card = card_of(service, posted(service, content, "csv", model="headerless", targets="c3", header="none"))
    assert (card["features"], card["rows"]) == (["c1", "c2"], 14)
    named = card_of(service, posted(service, content, "csv", targets="62.634", header="names"))
    assert (named["features"], named["rows"]) == (["7.59", "1581.15"], 13)
    _, (place,) = failure(posted(service, content + b"1,2,x\n", "csv", targets="c3", header="none"))
    assert place["row"] == 15


def test_a_file_without_a_header_is_predicted_as_it_was_trained(service: Service) -> None:
    content = (TABLES / "headerless-target-found.csv").read_bytes()
    card_of(service, posted(service, content, "csv", model="bare", targets="c3", header="none"))
    rows = b"\n".join(line.rpartition(b",")[0] for line in content.splitlines())

    def predicted(body: bytes, **query: str) -> httpx.Response:
        return service.client.post(
            "/models/bare/predict", params=query, content=body, headers={"content-type": "text/csv"}
        )

    answer = predicted(rows, header="none")
    assert predicted(rows).text == answer.text  # as the version was trained
    assert answer.text == predicted(b"c1,c2\n" + rows, header="names").text
    assert len(answer.text.splitlines()) == 15
    refused = predicted(rows + b"\n1,x\n", header="none")
    assert (refused.status_code, refused.json()["errors"][0]["row"]) == (422, 15)
    # Columns are named by their position, so other columns may keep their positions.
    assert predicted(content, header="none").text == answer.text


MINIMAL: dict[str, str] = {"x,y\n1,2\n": "csv", '{"x":1,"y":2}\n': "ndjson"}


def test_an_empty_name_among_the_features_is_refused(service: Service) -> None:
    for content, form in MINIMAL.items():
        answer = posted(service, content, form, features="x,,")
        assert answer.status_code == 422, answer.text


@pytest.mark.parametrize("form", ["ndjson", "arrow", "parquet"])
def test_only_csv_has_a_header(service: Service, form: str) -> None:
    content = written(pa.table({"x": [1.0], "y": [2.0]}), form)
    answers = [
        posted(service, content, form, header="none"),
        service.client.post("/predict?header=none", content=content, headers={"content-type": MEDIA_TYPES[form]}),
        service.client.post("/predict?header=none", json={"instances": [[1, 2, 3]]}),
        posted(service, "x,y\n1,2\n", "csv", header="maybe"),
    ]
    assert [answer.status_code for answer in answers] == [422] * 4
    assert all(answer.json()["errors"][0]["parameter"] == "header" for answer in answers)
    assert "CSV" in answers[0].json()["detail"]


@pytest.mark.parametrize("rows", [5, 12_000], ids=["in the first MiB", "later"])
@pytest.mark.parametrize("quote", ["", '"'], ids=["fast", "careful"])
def test_a_byte_that_is_not_utf8_in_an_unread_column_fails_the_job_in_any_row(
    service: Service, rows: int, quote: str
) -> None:
    content = b"x,y,note\n" + f"1,2,{quote}{'a' * 100}{quote}\n".encode() * rows + b"3,4,caf\xe9\n" + b"5,6,b\n"
    message, (place,) = failure(posted(service, content, "csv", features="x"))
    assert message.startswith("The file is not UTF-8 text")
    assert place["row"] == rows + 2
    # The problem response is the same for a fault in any row.
    long = b"1.00000000000,2.0000000,3.0000000," + b"4" * 70 + b"\n"
    unread = service.client.post(
        "/predict",
        params={"keep": "note"},
        content=b"temp,rainfall,humidity,note\n" + long * rows + b"1,2,3,caf\xe9\n",
        headers={"content-type": "text/csv", "accept": "text/csv"},
    )
    assert unread.status_code == 422
    assert unread.json()["detail"].startswith(f"The file is not UTF-8 text: row {rows + 2} ")


def test_a_header_that_is_not_utf8_is_refused_at_once(service: Service) -> None:
    answer = posted(service, (TABLES / "latin1-header.csv").read_bytes(), "csv")
    assert answer.status_code == 422
    assert "not UTF-8 text" in answer.json()["detail"]


def test_rows_of_weight_zero_change_nothing(service: Service) -> None:
    lines = "".join(f"{index},{index * index % 7},1\n" for index in range(20))
    outliers = "".join(f"{index},1e9,0\n" for index in range(20))
    descent = {"solver": "gradient_descent", "batch_size": "4", "epochs": "20", "learning_rate": "1e-4"}
    for options in ({}, {"folds": "3"}, descent):
        whole = card_of(service, posted(service, "x,y,w\n" + outliers + lines, "csv", weight="w", **options))
        alone = card_of(service, posted(service, "x,y,w\n" + lines, "csv", weight="w", **options))
        assert (whole["coefficients"], whole["metrics"]) == (alone["coefficients"], alone["metrics"])
        assert (whole["rows"], whole["dropped_rows"]) == (20, 0)
    message, _ = failure(posted(service, "x,y,w\n" + outliers, "csv", weight="w"))
    assert message.startswith("Every row has weight 0")
    job = service.train(model="zero", instances=[[1]], feature_names=["x"], targets=[{"y": 1}], sample_weights=[0])
    assert job["error"]["detail"].startswith("Every row has weight 0")
