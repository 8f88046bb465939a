"""POST /models/{model}/evaluate: metrics of versions on labelled rows."""

import asyncio
import hashlib
import io
import tracemalloc
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet
import pytest
from service import NOTEBOOK, Service
from starlette.requests import Request
from tables import ENCODINGS, MEDIA_TYPES, TABLE_FORMS, written
from threaded_service import ThreadedService
from trained import model_of, version_of

from app.data.formats.parquet import PARQUET
from app.errors import MalformedBody
from app.monitoring.evaluations import MAX_EVALUATIONS, EvaluationStore
from app.prediction.evaluation import EvaluationOptions, evaluate_table, read_options, working_bytes
from app.prediction.tables import TableRows
from app.storage.folder_store import FolderStore
from app.web.evaluations import _departure

ROWS = 90
CSV = "text/csv"
PATH = "/models/shops/evaluate"
EXCEL = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


def table(seed: int, rows: int = ROWS) -> pa.Table:
    """Rows of shops: a number and a category as features, a column that is no feature, weights and a target."""
    random = np.random.default_rng(seed)
    size, region = random.integers(10, 90, rows), np.array(["north", "south", "east"])[np.arange(rows) % 3]
    sales = 3 * size + 40 * (region == "south") + random.normal(0, 8, rows).round(2)
    city = [f"city {row % 4}" for row in range(rows)]
    weight = random.integers(1, 5, rows)
    return pa.table({"size": size, "region": region, "city": city, "copies": weight, "sales": sales})


LABELLED = table(2)


@pytest.fixture(scope="module")
def shops(publishing: Service) -> Service:
    """A service with a model of which version 1 has both features, and version 2 only the number."""
    for columns in (["size", "region", "sales"], ["size", "sales"]):
        body = written(table(1).select(columns), "csv")
        query = {"model": "shops", "targets": "sales", "schema": "infer"}
        headers = {"content-type": CSV, "prefer": "wait=60"}
        job = publishing.ended_job(publishing.client.post("/train", params=query, content=body, headers=headers))
        assert job["status"] == "succeeded", job
    return publishing


def evaluate(service: Service, rows: pa.Table | str | bytes, **query: Any) -> httpx.Response:
    body = written(rows, "csv") if isinstance(rows, pa.Table) else rows
    return service.client.post(PATH, params=query, content=body, headers={"content-type": CSV})


def expected(service: Service, rows: pa.Table, version: int = 1) -> dict[str, float]:
    """The metrics by their definitions, from the predictions for the same rows."""
    body = {"instances": rows.drop(["copies", "city"]).to_pylist(), "interval": 0.9}
    if version == 2:
        body["instances"] = rows.select(["size"]).to_pylist()
    answer = service.client.post(f"/models/shops/versions/{version}/predict", json=body).json()
    predicted = np.array([row["sales"] for row in answer["predictions"]])
    low, high = np.array([row["sales"] for row in answer["intervals"]]).T
    observed, w = rows["sales"].to_numpy(), rows["copies"].to_numpy()
    errors = predicted - observed
    return {
        "rows": len(rows),
        "rmse": np.sqrt(np.average(errors**2, weights=w)),
        "mae": np.average(abs(errors), weights=w),
        "bias": np.average(errors, weights=w),
        "r2": 1 - np.average(errors**2, weights=w) / np.cov(observed, aweights=w, ddof=0),
        "max_absolute_error": abs(errors).max(),
        "interval_rows": len(rows),
        "interval_coverage": np.average((low <= observed) & (observed <= high), weights=w),
        "mean_interval_width": np.average(high - low, weights=w),
    }


@pytest.mark.parametrize("form", TABLE_FORMS)
def test_rows_in_every_format_have_the_metrics_of_their_predictions(shops: Service, form: str) -> None:
    encoding = {"csv": "gzip", "arrow": "zstd"}.get(form, "identity")
    headers = {"content-type": {**MEDIA_TYPES, "excel": EXCEL, "json": "application/json"}[form]}
    body = ENCODINGS[encoding](written(LABELLED, form))
    query = {"versions": "1,2", "level": "0.9", "weight": "copies", "by": "region"}
    answer = shops.client.post(PATH, params=query, content=body, headers=headers | {"content-encoding": encoding})
    assert answer.status_code == 200, answer.text
    for result in answer.json()["versions"]:
        number = result["version"]
        assert result["targets"]["sales"] == pytest.approx(expected(shops, LABELLED, number), rel=1e-10)
        assert [segment["value"] for segment in result["segments"]] == ["north", "south", "east"]
        for segment in result["segments"]:
            own = LABELLED.filter(pa.compute.equal(LABELLED["region"], segment["value"]))
            assert segment["targets"]["sales"] == pytest.approx(expected(shops, own, number), rel=1e-10)
        assert result["left_out"] == {"rows": 0, "gaps": {}, "unseen": {}, "zero_weight": 0}
        assert sum(decile["rows"] for decile in result["calibration"]["sales"]) == ROWS
        assert (result["other"], result["unavailable"], result["calibration_is_exact"]) == (None, {}, True)


def test_json_rows_may_have_their_targets_apart_or_in_them_and_a_form_its_options_after_the_file(
    shops: Service,
) -> None:
    rows = LABELLED.drop(["copies", "city"])
    apart = {"instances": rows.drop(["sales"]).to_pylist(), "targets": rows.select(["sales"]).to_pylist()}
    within = {"instances": rows.to_pylist()}
    arrays = {"instances": [[*row.values()] for row in rows.to_pylist()]}
    lists = {"instances": [[*row.values()] for row in apart["instances"]], "targets": rows["sales"].to_pylist()}
    split = {"columns": rows.column_names, "data": arrays["instances"]}
    path = "/models/shops/versions/1/evaluate"
    answers = [
        shops.client.post(path, params={"by": "region"}, json=body) for body in (apart, within, arrays, lists, split)
    ]
    form: dict[str, Any] = {"file": ("rows.csv", written(rows, "csv")), "by": (None, "region")}
    answers.append(shops.client.post(path, files=form))
    assert [answer.status_code for answer in answers] == [200] * 6, [answer.text for answer in answers]
    first = answers[0].json()
    assert [*first["versions"][0]["targets"]] == ["sales"]
    assert all(answer.json() == first for answer in answers)


def test_rows_that_cannot_be_used_are_left_out_and_counted(shops: Service) -> None:
    body = (
        "size,region,sales,copies\n20,north,60,1\n,north,61,1\n30,west,90,1\n40,south,,1\n50,east,150,0\n60,east,180,\n"
        "70,east,210,2\n"
    )
    rows = [dict(zip(("size", "region", "sales", "copies"), line.split(","), strict=True)) for line in body.split()[1:]]
    objects = [
        {name: text if name == "region" else float(text) if text else None for name, text in row.items()}
        for row in rows
    ]
    by_file = evaluate(shops, body, weight="copies", versions="1,2", by="region").json()
    as_json = shops.client.post(
        PATH, params={"weight": "copies", "versions": "1,2", "by": "region"}, json={"instances": objects}
    ).json()
    first, second = by_file["versions"]
    gaps = {"size": 1, "sales": 1, "copies": 1}
    assert first["left_out"] == {"rows": 5, "gaps": gaps, "unseen": {"region": 1}, "zero_weight": 1}
    assert second["left_out"] == {"rows": 4, "gaps": gaps, "unseen": {}, "zero_weight": 1}
    assert (first["rows"], first["targets"]["sales"]["rows"], second["targets"]["sales"]["rows"]) == (7, 2, 3)
    assert as_json == by_file
    as_reference = evaluate(shops, body, versions="1", unknown="reference").json()["versions"][0]
    assert as_reference["left_out"]["unseen"] == {}
    refused = evaluate(shops, body, versions="1", missing="refuse").json()
    assert refused["errors"][0]["row"] == 3
    unseen = evaluate(shops, body, versions="1", unknown="refuse").json()
    assert (unseen["errors"][0]["row"], unseen["errors"][0]["column"]) == (4, "region")


def test_nothing_is_given_for_rows_without_a_target_and_the_reason_is(shops: Service) -> None:
    answer = evaluate(shops, "size,region,sales\n20,north,\n", versions="1").json()["versions"][0]
    assert answer["targets"]["sales"]["rmse"] is None
    assert answer["calibration"] == {"sales": []}
    assert set(answer["unavailable"]) == {
        f"sales.{name}"
        for name in ("rmse", "mae", "bias", "r2", "max_absolute_error", "interval_coverage", "mean_interval_width")
    }


def test_the_most_frequent_values_are_segments_and_all_others_are_one(shops: Service) -> None:
    rows = table(3, 2000)
    values = ["frequent"] * 200 + [f"<b>{row % 60}</b>" for row in range(600)] + [""] * 100
    values += [f"rare {row}" for row in range(1100)]
    rows = rows.set_column(2, "city", pa.array(values))
    answer = evaluate(shops, rows, by="city").json()["versions"][0]
    assert len(answer["segments"]) == 50
    assert [segment["value"] for segment in answer["segments"][:2]] == ["frequent", None]
    assert answer["other"]["more"]
    assert answer["other"]["values"] == 950
    counted = [segment["targets"]["sales"]["rows"] for segment in (*answer["segments"], answer["other"])]
    assert sum(counted) == 2000
    numbers = evaluate(shops, LABELLED, by="copies").json()["versions"][0]["segments"]
    assert {segment["value"] for segment in numbers} == {"1", "2", "3", "4"}
    sizes = evaluate(shops, LABELLED, by="size").json()["versions"][0]["segments"]
    assert {segment["value"] for segment in sizes} <= {str(size) for size in LABELLED["size"].to_pylist()}


GOOD = "size,region,sales\n20,north,60\n30,south,95\n"


@pytest.mark.parametrize(
    ("rows", "query", "status", "words"),
    [
        (GOOD, {"versions": "9"}, 404, "no version 9"),
        (GOOD, {"versions": "1,1"}, 422, "more than once"),
        (GOOD, {"versions": "1,2,3,4,5"}, 422, "versions"),
        (GOOD, {"versions": "1;2"}, 422, "separated by commas"),
        (GOOD, {"versions": "0"}, 404, "no version 0"),
        (GOOD, {"by": "nowhere"}, 422, "nowhere"),
        (GOOD, {"weight": "nowhere"}, 422, "nowhere"),
        (GOOD, {"weight": "sales"}, 422, "not a column of weights"),
        (GOOD, {"weight": "region", "versions": "1"}, 422, "not a column of weights"),
        (GOOD, {"level": "1"}, 422, "level"),
        (GOOD, {"row": "3"}, 422, "unknown or repeated"),
        ("size,region\n20,north\n", {}, 422, "sales"),
        ("size,sales\n20,60\n", {"versions": "2,1"}, 422, "Version 1: "),
        ("size,region,sales,w\n20,north,60,-1\n", {"weight": "w"}, 422, "negative"),
        ("size,region,sales\n20,north,many\n", {}, 422, "Row 2"),
        ("size,region,sales\n20,north,inf\n", {}, 422, "not a finite number"),
        ("size,region,sales\n1e308,north,1\n", {"versions": "1"}, 422, "exceeds the range"),
        ("size,region,sales\n", {}, 422, "has no rows"),
        ("", {}, 422, "empty"),
    ],
)  # fmt: skip
def test_bad_input_is_a_problem_with_its_place(
    shops: Service, rows: str, query: dict[str, str], status: int, words: str
) -> None:
    answer = evaluate(shops, rows, **query)
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    assert words in answer.text
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"instances": [{"size": 1, "region": "north"}], "targets": [[1], [2]]}, "/targets"),
        ({"instances": [{"size": 1, "region": "north"}], "targets": [{"sales": "many"}]}, "/targets/0/sales"),
        ({"instances": [{"size": 1, "region": "north"}]}, "/instances/0"),
        ({"instances": [{"size": 1, "region": "north", "sales": 1, "w": -2, "by": "x"}]}, "/instances/0/w"),
        ({"instances": [{"size": 1, "region": "north", "sales": 1, "w": 1, "by": []}]}, "/instances/0/by"),
        ({"instances": [{"size": 1, "region": "north", "sales": 1, "w": 1}]}, "/instances/0"),
        ({"instances": []}, "/instances"),
    ],
)
def test_a_fault_in_json_rows_has_its_place(shops: Service, body: dict[str, Any], place: str) -> None:
    query = {"versions": "1"} | ({"weight": "w", "by": "by"} if '"w"' in orjson.dumps(body).decode() else {})
    answer = shops.client.post(PATH, params=query, json=body)
    assert answer.status_code == 422, answer.text
    assert place in [error.get("pointer") for error in answer.json()["errors"]], answer.text


def test_too_many_versions_are_refused_in_a_sentence(shops: Service) -> None:
    answer = evaluate(shops, LABELLED, versions="1,2,3,4,5")

    assert answer.status_code == 422
    assert "Expected at most 4 versions, found 5" in answer.text


def test_every_metric_that_is_null_has_its_reason(shops: Service) -> None:
    row = "size,region,sales,w\n10,north,3,{}\n"
    for body, weight in ((row.format(0), "w"), (row.format(1e308) + "12,north,1e8,1e308\n", "w")):
        version = evaluate(shops, body, versions=1, weight=weight).json()["versions"][0]
        nulls = {name for name, value in version["targets"]["sales"].items() if value is None}
        assert nulls
        assert {f"sales.{name}" for name in nulls} <= version["unavailable"].keys()
    assert (
        "weight 0"
        in evaluate(shops, row.format(0), versions=1, weight="w").json()["versions"][0]["unavailable"]["sales.rmse"]
    )


def test_an_evaluation_stops_once_its_client_has_gone() -> None:
    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def evaluate_after_the_client_has_gone() -> None:
        with _departure(Request({"type": "http"}, receive)) as check:
            check()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            with pytest.raises(MalformedBody, match="closed the connection"):
                check()

    asyncio.run(evaluate_after_the_client_has_gone())


def files_in(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and "evaluations" in path.parts
    }


def test_a_recorded_evaluation_survives_a_restart_and_others_leave_nothing(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    scopes = {"reader": "predict", "trainer": "predict,train"}
    keys.write_text(
        "".join(f"{name} {scope} {hashlib.sha256(name.encode()).hexdigest()}\n" for name, scope in scopes.items())
    )
    service = ThreadedService(tmp_path, api_keys_file=str(keys)).start()
    path = "/models/crop-yield"
    try:
        reader, trainer = ({"x-api-key": name} for name in scopes)
        plain = service.client.post(f"{path}/evaluate", json=NOTEBOOK, headers=reader)
        assert plain.status_code == 200, plain.text
        refused = service.client.post(f"{path}/evaluate?record=true", json=NOTEBOOK, headers=reader)
        assert refused.status_code == 403
        assert files_in(service.state) == set()
        recorded = service.client.post(f"{path}/evaluate?record=true", json=NOTEBOOK, headers=trainer)
        assert recorded.json().items() >= plain.json().items()
        service.stop()
        service.start()
        assert service.client.get(f"{path}/evaluations", headers=reader).json() == {"items": [recorded.json()]}
        assert service.client.get("/models/nothing/evaluations", headers=reader).status_code == 404
        assert service.client.get(f"{path}/evaluations").status_code == 401
    finally:
        service.stop()


def test_the_newest_evaluations_of_each_model_are_kept(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    evaluations = EvaluationStore(store)
    plain: dict[str, Any] = {"model": "shops", "by": None, "level": 0.95, "weight": None, "versions": []}
    for number in range(MAX_EVALUATIONS + 3):
        evaluations.add("shops", plain | {"by": str(number)})
    evaluations.add("shops-2", plain)
    numbers = [*reversed(range(3, MAX_EVALUATIONS + 3))]
    assert [int(one["by"]) for one in evaluations.newest("shops")] == numbers
    # What another release wrote, or somebody altered, is left out.
    keys = [blob.key for blob in store.list_blobs("monitoring/evaluations/shops/")]
    for key, content in zip(keys, (b"{", b'{"versions":{"a":1}}', b'{"id":1}', b"[]"), strict=False):
        store.put(key, content)
    evaluations = EvaluationStore(store)
    assert [int(one["by"]) for one in evaluations.newest("shops")] == numbers[:-4]
    evaluations.delete("shops")
    assert evaluations.newest("shops") == []
    assert len(evaluations.newest("shops-2")) == 1


@pytest.mark.slow
def test_a_long_table_takes_no_more_memory_than_is_reserved() -> None:
    random = np.random.default_rng(4)
    x = random.normal(size=(100, 2))
    version = version_of(model_of(x, x[:, :1] + random.normal(size=(100, 1))))
    n = 300_000
    columns = {name: random.normal(size=n) for name in ("x0", "x1", "y0")}
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns | {"by": np.arange(n) % 5000}), sink, row_group_size=50_000)
    options = EvaluationOptions(by="by")
    reserved = [working_bytes(version.model, by_segment=True), 1 << 25]
    rows = TableRows(sink.getvalue(), PARQUET, version, read_options(options), reserved.append)
    tracemalloc.start()
    result = evaluate_table(rows, options, 1 << 30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.targets["y0"].rows == n
    assert not result.calibration_is_exact
    assert result.other is not None
    assert peak < sum(reserved)
