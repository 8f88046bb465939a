"""POST /models/{model}/versions: what a version that was fitted elsewhere can do, and what it refuses."""

import gzip
import json
import pickle
import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from html_forms import Page
from safetensors.numpy import save
from service import INPUTS, NOTEBOOK, TARGETS, Service, wait_for
from sign_in import browser_of
from tables import gzip_bomb
from threaded_service import ThreadedService

from app.exchange import EXPORTS

IMPORTED = "imported without statistics"
APPLES: dict[str, Any] = {
    "features": ["temp", "rainfall", "humidity"],
    "targets": ["apples", "oranges"],
    "coefficients": [[0.5, 1.0, -0.25], [0.125, 0.5, 2.0]],
    "intercept": [3.0, -1.0],
    "source": "by hand",
}
ROW = [75.0, 63.0, 44.0]
ROWS = "\n".join(
    [
        "temp,rainfall,humidity,apples,oranges",
        *(",".join(map(str, [*x, *y])) for x, y in zip(INPUTS, TARGETS, strict=True)),
    ]
)
CSV = {"Content-Type": "text/csv"}


@pytest.fixture(scope="module")
def client(publishing: Service) -> httpx.Client:
    return publishing.client


def imported(client: httpx.Client, model: str, body: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """Import a model. Return the card."""
    response = client.post(f"/models/{model}/versions", json=APPLES if body is None else body, **options)
    assert response.status_code == 201, response.text
    card: dict[str, Any] = response.json()
    assert response.headers["location"] == f"/models/{model}/versions/{card['version']}"
    return card


def refused(response: httpx.Response, status: int, *words: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    problem: dict[str, Any] = response.json()
    text = json.dumps(problem)
    assert all(word in text for word in words), text
    return problem


def covariance(weights: np.ndarray | None = None) -> dict[str, Any]:
    """Return the record of a least-squares fit with its covariance."""
    x, y = np.array(INPUTS), np.array(TARGETS)
    design = np.column_stack([np.ones(len(x)), x])
    inverse = np.linalg.inv(design.T @ design)
    found = inverse @ design.T @ y
    rss = ((y - design @ found) ** 2).sum(axis=0)
    return APPLES | {
        "coefficients": found[1:].T.tolist(),
        "intercept": found[0].tolist(),
        "covariance": [(inverse * each / 11).tolist() for each in rss],
        "residual_df": 11,
        "rss": rss.tolist(),
    }


def test_a_version_without_statistics_predicts_explains_and_states_what_is_missing(client: httpx.Client) -> None:
    card = imported(client, "alone")
    assert card["inference_unavailable"] == IMPORTED
    assert card["imported"] == {"format": "json", "source": "by hand", "given": "coefficients", "baseline": "zero"}
    assert (card["rows"], card["rank"], card["solver"]["kind"], card["current"]) == (None, None, "imported", True)
    assert (card["solver"], card["weight_kind"], card["table"]["rows"]) == ({"kind": "imported"}, None, None)
    assert [card["dropped_rows"], card["gaps"], card["mode"], card["table"]["features"][0]["gaps"]] == [None] * 4
    assert card["libraries"].keys() == {"linserve-server"}
    assert card["unavailable"]["precision_bounds"] == "The version was imported without statistics."
    assert card["unavailable"]["mode"] == "The version was imported, without its rows."
    assert {card["unavailable"][name] for name in ("rows", "rank", "total_weight", "standard_errors")} == {IMPORTED}

    asked = {"instances": [ROW], "interval": 0.9, "confidence": 0.9, "explain": True, "extrapolation": True}
    answer = client.post("/models/alone/predict", json=asked).json()
    assert answer["predictions"] == [[92.5, 127.875]]
    assert (answer["intervals"], answer["confidence_intervals"], answer["extrapolation"]) == (None, None, None)
    assert answer["baseline"] == [3.0, -1.0]
    assert answer["contributions"] == [[[37.5, 63.0, -11.0], [9.375, 31.5, 88.0]]]
    assert answer["unavailable"] == {
        "intervals": IMPORTED,
        "confidence_intervals": IMPORTED,
        "extrapolation": IMPORTED,
        "baseline": "Contributions are relative to 0, because the training means are not known.",
    }


def test_every_get_of_an_imported_version_answers(client: httpx.Client) -> None:
    imported(client, "imported-twice")
    imported(client, "imported-twice", covariance())
    places = ["", "/versions/1", "/versions/1/schema", "/versions/1/file", "/drift", "/drift?version=1", "/schema"]
    places += ["/traffic", "/aliases", "/versions/1?include=covariance", "/versions/2?include=covariance"]
    for place in places:
        response = client.get(f"/models/imported-twice{place}")
        assert response.status_code == 200, (place, response.text)
    operations = [path for path, each in client.get("/openapi.json").json()["paths"].items() if "get" in each]
    for version in ("1", "2"):
        for path in operations:
            if path.endswith("events") or "{job}" in path:  # They have no version.
                continue
            formats = [f"?format={each.name}" for each in EXPORTS] if path.endswith("/export") else [""]
            for query in formats:
                url = path.replace("{model}", "imported-twice").replace("{version}", version) + query
                response = client.get(url)
                assert response.status_code == 200, (url, response.text[:500])
    refused(client.get("/models/imported-twice/versions/1/file?for=merge"), 409, IMPORTED)
    refused(client.get("/models/imported-twice/versions/2/file?for=merge"), 409, "only approximately")
    drift = client.get("/models/imported-twice/drift?version=1").json()
    assert drift["verdict"] == "no training rows"
    assert IMPORTED in drift["unavailable"]["verdict"]
    assert client.get("/metrics").status_code == 200
    model = "/models/imported-twice"
    pages = ["/", "/learn", model, f"{model}/versions/1", f"{model}/versions/2", f"{model}/compare?versions=1,2"]
    for page in [*pages, f"{model}/versions/1?scale=standardised"]:
        response = client.get(page, headers={"Accept": "text/html"})
        assert response.status_code == 200, (page, response.text[:500])
    page = client.get("/models/imported-twice/versions/1", headers={"Accept": "text/html"}).text
    assert IMPORTED in page
    assert "imported from by hand" in page


@pytest.mark.parametrize(("body", "reason"), [(APPLES, IMPORTED), (covariance(), "only approximately")])
@pytest.mark.parametrize("mode", ["update", "forget"])
def test_no_rows_are_added_to_or_taken_out_of_a_version_without_exact_statistics(
    client: httpx.Client, body: dict[str, Any], reason: str, mode: str
) -> None:
    imported(client, "fixed", body)
    json_rows = client.post("/train", json=NOTEBOOK | {"model": "fixed", "mode": mode})
    refused(json_rows, 422, reason, "/mode")
    file = client.post(f"/train?model=fixed&mode={mode}&targets=apples,oranges", content=ROWS, headers=CSV)
    refused(file, 422, reason)
    exported = client.get("/models/crop-yield/versions/1/file?for=merge")
    if exported.status_code == 200:
        merged = client.post(
            "/models/fixed/merge", content=exported.content, headers={"Content-Type": "application/octet-stream"}
        )
        refused(merged, 422, reason)


def test_a_version_without_statistics_is_not_merged_into_another_model(client: httpx.Client) -> None:
    imported(client, "leaving")
    file = client.get("/models/leaving/versions/1/file").content
    octets = {"Content-Type": "application/octet-stream"}
    refused(client.post("/models/leaving-too/merge", content=file, headers=octets), 422, IMPORTED)


def test_rows_can_replace_an_imported_version_and_be_compared_with_it(publishing: Service) -> None:
    imported(publishing.client, "replaced")
    options = {"model": "replaced", "promote": "if_better", "unseen": True, "validation": {"folds": 3}}
    job = publishing.train(**NOTEBOOK, **options)
    assert job["status"] == "succeeded", job
    card = publishing.client.get("/models/replaced").json()
    assert (card["version"], card["parent"], card["imported"]) == (2, 1, None)


def test_labelled_rows_evaluate_an_imported_version(client: httpx.Client) -> None:
    number = imported(client, "judged")["version"]
    response = client.post(f"/models/judged/versions/{number}/evaluate", content=ROWS, headers=CSV)
    assert response.status_code == 200, response.text
    found = response.json()
    assert found["versions"][0]["targets"]["apples"]["rmse"] > 0
    assert IMPORTED in json.dumps(found)


def test_versions_with_a_covariance_have_intervals_and_standard_errors(client: httpx.Client) -> None:
    card = imported(client, "errors", covariance())
    assert card["imported"]["given"] == "covariance"
    assert card["inference_unavailable"] is None
    trained = client.get("/models/crop-yield/versions/1").json()
    assert card["standard_errors"]["apples"] == pytest.approx(trained["standard_errors"]["apples"], rel=1e-8)
    asked = {"instances": [ROW], "interval": 0.9, "extrapolation": True}
    ours = client.post("/models/errors/predict", json=asked).json()
    theirs = client.post("/models/crop-yield/versions/1/predict", json=asked).json()
    np.testing.assert_allclose(ours["intervals"], theirs["intervals"], rtol=1e-8)
    assert ours["extrapolation"][0]["leverage"] == pytest.approx(theirs["extrapolation"][0]["leverage"])
    assert "extrapolation.outside" in ours["unavailable"]


def test_a_version_file_is_imported_with_its_statistics_and_can_be_updated(publishing: Service) -> None:
    client = publishing.client
    file = client.get("/models/crop-yield/versions/1/file").content
    response = client.post("/models/taken-over/versions", content=file)
    assert response.status_code == 201, response.text
    card, before = response.json(), client.get("/models/crop-yield/versions/1").json()
    assert card["imported"]["given"] == "statistics"
    assert (card["job"], card["parent"], card["rows"]) == (None, None, before["rows"])
    assert card["inference_unavailable"] is None
    assert card["coefficients"] == before["coefficients"]
    job = publishing.train(**NOTEBOOK, model="taken-over", mode="update")
    assert job["status"] == "succeeded", job
    assert client.get("/models/taken-over").json()["rows"] == before["rows"] + 15


def test_a_state_dict_is_imported_with_names_from_the_request(client: httpx.Client) -> None:
    weight, bias = np.array([[1.5, -2.0]], dtype=np.float32), np.array([0.5], dtype=np.float16)
    content = save({"layer.weight": weight, "layer.bias": bias})
    refused(client.post("/models/layer/versions", content=content), 422, "?features=a,b&targets=y")
    response = client.post("/models/layer/versions?features=a,b&targets=y", content=content)
    assert response.status_code == 201, response.text
    assert response.json()["coefficients"] == {"y": {"a": 1.5, "b": -2.0}}
    form = client.post(
        "/models/layer/versions",
        files={"file": ("layer.safetensors", content)},
        data={"features": "b,a", "targets": "z", "promote": "never"},
    )
    assert form.status_code == 201, form.text
    assert form.json()["coefficients"] == {"z": {"b": 1.5, "a": -2.0}}
    assert not form.json()["current"]


def test_an_idempotency_key_imports_once(client: httpx.Client) -> None:
    key = {"Idempotency-Key": "one"}
    first = imported(client, "once", headers=key)
    assert imported(client, "once", headers=key)["version"] == first["version"]
    other = client.post("/models/once/versions", json=APPLES | {"intercept": [0, 0]}, headers=key)
    refused(other, 422, "key-reused")
    assert client.get("/models/once").json()["versions"] == [first["version"]]
    client.post("/models/once/versions?promote=always", json=APPLES)
    assert client.delete(f"/models/once/versions/{first['version']}").status_code == 204
    refused(client.post("/models/once/versions", json=APPLES, headers=key), 409)


def test_an_import_is_promoted_if_it_is_asked_to_be(client: httpx.Client) -> None:
    first = imported(client, "wanted", params={"promote": "if_better"})
    assert first["current"]
    second = imported(client, "wanted", params={"promote": "if_better"})
    assert not second["current"]
    assert second["warnings"][0].startswith("Not promoted: an import brings no rows")
    assert not imported(client, "wanted", params={"promote": "never"})["current"]
    third = imported(client, "wanted")
    assert third["current"]
    client.put("/models/wanted/current", json={"version": 1}).raise_for_status()
    client.put("/models/wanted/aliases/old", json={"version": 2}).raise_for_status()
    assert client.post("/models/wanted/aliases/old/predict", json={"instances": [ROW]}).status_code in (200, 404)
    split = {"split": {"1": 50, "2": 50}}
    assert client.put("/models/wanted/traffic", json=split).status_code < 500
    assert client.delete("/models/wanted", headers={"If-Match": "*"}).status_code == 204


def test_bodies_are_recognised_by_their_bytes_and_decompressed(client: httpx.Client) -> None:
    text = json.dumps(APPLES).encode()
    for headers, content in (
        ({}, text),
        ({"Content-Type": "application/octet-stream"}, text),
        ({"Content-Type": "application/x-www-form-urlencoded"}, text),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, gzip.compress(text)),
    ):
        response = client.post("/models/recognised/versions", content=content, headers=headers)
        assert response.status_code == 201, response.text


def test_a_safetensors_file_whose_length_field_reads_as_a_brace_is_not_parsed_as_json(client: httpx.Client) -> None:
    header = b'{"weight":{"dtype":"F64","shape":[1,1],"data_offsets":[0,8]}}'.ljust(0x7B20)
    content = len(header).to_bytes(8, "little") + header + bytes(8)
    assert content.startswith(b" {")
    response = client.post("/models/brace/versions?features=a&targets=y", content=content)
    assert response.status_code == 201, response.text


def test_a_pickle_is_refused_with_the_safe_way(client: httpx.Client) -> None:
    for content in (pickle.dumps({"weight": [1]}), b"PK\x03\x04....archive/data.pkl...."):
        problem = refused(client.post("/models/pickled/versions", content=content), 415, "pickle", "save_file")
        assert "import_model" in problem["detail"]
    refused(client.get("/models/pickled"), 404)


NOTHING = {
    "rows": 3, "effective_rows": 3, "log_weights": 0, "shift": [0] * 5, "scale": [1] * 5, "factor": [[0] * 6] * 6,
    "minimum": [0] * 3, "maximum": [0] * 3,
}  # fmt: skip
LYING = b'{"weight":{"dtype":"F64","shape":[4000000000,4000000000],"data_offsets":[0,8]}}'


def layer_of(shape: str, numbers: int) -> bytes:
    """Return a file of zeros with one weight, whose shape is written in this way."""
    header = f'{{"weight":{{"dtype":"F64","shape":{shape},"data_offsets":[0,{8 * numbers}]}}}}'.encode()
    return len(header).to_bytes(8, "little") + header + bytes(8 * numbers)


def changed(**fields: Any) -> dict[str, Any]:
    return APPLES | fields


def with_first(**column: Any) -> dict[str, Any]:
    """Return the record with another first feature."""
    return changed(features=[column, "b", "c"])


def fitted(**fields: Any) -> dict[str, Any]:
    return covariance() | fields


HALVES = [np.triu(each).tolist() for each in covariance()["covariance"]]
BAD: dict[str, tuple[Any, int, str]] = {
    "empty": (b"", 400, "empty"),
    "not JSON": (b"{", 400, "not JSON"),
    "unknown bytes": (b"\x00\x01hello", 415, "formats"),
    "NaN": (json.dumps(changed(intercept=[float("nan"), 0])).encode(), 400, "NaN"),
    "infinite": (b'{"features":["a"],"targets":["y"],"coefficients":[1e999],"intercept":0}', 422, "/coefficients/0"),
    "text": (changed(intercept=["a", 0]), 422, "/intercept/0"),
    "unknown field": (changed(slope=1), 422, "slope"),
    "no features": (changed(features=[]), 422, "/features"),
    "too many features": (changed(features=[f"x{i}" for i in range(2001)]), 422, "/features"),
    "repeated feature": (changed(features=["a", "a", "b"]), 422, "/features/1"),
    "feature and target": (changed(features=["apples", "a", "b"]), 422, "apples"),
    "reserved": (changed(targets=["mse", "y"]), 422, "/targets/0"),
    "invisible": (changed(features=["a\u200b", "b", "c"]), 422, "/features/0"),
    "too few coefficients": (changed(coefficients=[[1, 2], [3, 4]]), 422, "/coefficients"),
    "ragged": (changed(coefficients=[[1, 2, 3], [3, 4]]), 422, "/coefficients/1"),
    "one target": (changed(coefficients=[[1, 2, 3]]), 422, "/coefficients"),
    "flat for two targets": (changed(coefficients=[1, 2]), 422, "/coefficients/0"),
    "one intercept": (changed(intercept=3), 422, "/intercept"),
    "wrong columns": (changed(columns=["temp", "humidity", "rainfall"]), 422, "/columns"),
    "many terms": (changed(terms=["temp"] * 2001), 422, "/terms"),
    "wrong terms": (changed(terms=["temp^99"]), 422, "/terms"),
    "category without levels": (with_first(name="a", kind="category"), 422, "/features/0"),
    "fill of another kind": (with_first(name="a", missing="fill"), 422, "/features/0"),
    "fill that is not a level": (
        with_first(name="a", kind="category", levels=["x", "y"], missing="fill", fill="z"),
        422,
        "not one of its levels",
    ),
    "fill that is not a date": (with_first(name="a", kind="date", missing="fill", fill="soon"), 422, "not a date"),
    "a fill not boolean": (with_first(name="a", kind="boolean", missing="fill", fill=7), 422, "neither true nor"),
    "empty level": (with_first(name="a", kind="category", levels=["x", "\t"]), 422, "is empty"),
    "one sign for two": (with_first(name="a", decimal=",", thousands=","), 422, "the same sign"),
    "category as target": (changed(targets=[{"name": "a", "kind": "category", "levels": ["x"]}, "b"]), 422, "target"),
    "centre alone": (changed(centre=[1, 2, 3]), 422, "/centre"),
    "another intercept than at the centre": (changed(centre=[1, 2, 3], start=[5, 6]), 422, "/intercept"),
    "covariance alone": (changed(covariance=[[1]]), 422, "/residual_df"),
    "covariance of another shape": (fitted(covariance=[[[1.0]], [[1.0]]]), 422, "/covariance"),
    "covariance not symmetric": (fitted(covariance=HALVES), 422, "not symmetric"),
    "covariance not definite": (fitted(covariance=[np.ones((4, 4)).tolist()] * 2, rss=[1, 1]), 422, "/covariance"),
    "covariance of two fits": (fitted(rss=[1.0, 1.0]), 422, "do not belong to one fit"),
    "robust covariance": (fitted(residual_df=30), 422, "weighted"),
    "no rows": (fitted(residual_df=-1), 422, "/residual_df"),
    "no residual degrees of freedom": (fitted(residual_df=0), 422, "/residual_df"),
    "negative residuals": (fitted(rss=[1, -1]), 422, "/rss"),
    "a level with the name of a feature": (
        changed(features=[{"name": "a", "kind": "category", "levels": ["x", "y"]}, "a[y]", "b"]),
        422,
        "/features",
    ),
    "statistics and covariance": (fitted(statistics=NOTHING), 422, "/covariance"),
    "statistics of no rows": (changed(statistics=NOTHING), 422, "/statistics"),
    "statistics of other columns": (changed(statistics=NOTHING | {"shift": [0] * 4}), 422, "/statistics/shift"),
    "deep": (b'{"features":' + b"[" * 100_000, 422, "/features"),
    "state_dict of two layers": (save({"a.weight": np.ones((1, 1)), "b.weight": np.ones((1, 1))}), 422, "one layer"),
    "state_dict of another layer": (save({"weight": np.ones((1, 1)), "running_mean": np.ones(1)}), 422, "running_mean"),
    "state_dict of whole numbers": (save({"weight": np.ones((1, 1), dtype=np.int64)}), 422, "I64"),
    "state_dict of three dimensions": (save({"weight": np.ones((1, 1, 1))}), 422, "dimension"),
    "state_dict of no numbers": (layer_of(f"[0,{1 << 62}]", 0), 422, "no numbers"),
    "state_dict of many dimensions": (layer_of(f"[{'1,' * 99}1]", 1), 422, "100 dimension"),
    "state_dict with a long header": (layer_of(f"[{'1,' * 600_000}1]", 1), 422, "header"),
    "state_dict with NaN": (save({"weight": np.full((1, 1), np.nan)}), 422, "finite"),
    "bias of another length": (save({"weight": np.ones((1, 1)), "bias": np.ones(2)}), 422, "bias"),
    "header without tensors": (b"\x02" + bytes(7) + b"{}", 422, "weight"),
    "lying header": (b"\x60" + bytes(7) + LYING.ljust(96) + bytes(8), 422, "safetensors"),
    "zeros that expand": (gzip_bomb(b"\0", 200), 413, "longer"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_model_is_refused_with_the_place(service: Service, name: str) -> None:
    body, status, words = BAD[name]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Encoding": "gzip"} if content[:2] == b"\x1f\x8b" else {}
    with service.growing_by_less_than(200 << 20):
        response = service.client.post("/models/bad/versions?features=a&targets=y", content=content, headers=headers)
    problem = refused(response, status, words)
    assert len(response.content) < 20_000
    assert re.fullmatch(r"application/problem\+json", response.headers["content-type"])
    assert problem["detail"]
    assert service.client.get("/models/bad").status_code == 404


WIDE_FEATURES = [f"x{index}" for index in range(60)]
WIDE: dict[str, Any] = {
    "features": [{"name": "kind", "kind": "category", "levels": ["a", "b", "c"]}, *WIDE_FEATURES],
    "targets": [f"y{index}" for index in range(6)],
    "coefficients": [[float(column - target) for column in range(62)] for target in range(6)],
    "intercept": [0.0] * 6,
}


def test_the_pages_of_imported_versions_predict_and_have_forms(publishing: Service) -> None:
    imported(publishing.client, "pages", covariance())
    imported(publishing.client, "pages")
    imported(publishing.client, "wide-pages", WIDE)
    with browser_of(publishing) as browser:
        for model in ("pages", "pages/versions/1", "wide-pages"):
            page = browser.get(f"/models/{model}")
            assert page.status_code == 200
            form = Page(page.text).form(f"/models/{model}/predict")
            answer = browser.post(form.action, data=form.fields)
            assert answer.status_code == 200, answer.text
            assert "Prediction of version" in answer.text
        form = Page(browser.get("/models/pages").text).form("/models/pages/predict")
        answer = browser.post(form.action, data=form.fields)
        assert f"No interval. The version was {IMPORTED}." in answer.text
        assert "All columns at 0" in answer.text
        for place in ("/models/wide-pages?start=0", "/models/wide-pages?target=y5", "/models/wide-pages?part=drift",
                      "/models/wide-pages?part=versions", "/train?model=pages", "/jobs", "/"):  # fmt: skip
            assert browser.get(place).status_code == 200, place


def test_an_imported_version_that_is_the_default_model_has_outcomes_traffic_and_drift(tmp_path: Path) -> None:
    service = ThreadedService(tmp_path).start()
    client = service.client
    try:
        number = imported(client, "crop-yield")["version"]
        assert service.predict(ROW)["predictions"] == [[92.5, 127.875]]  # by the fast path
        recorded = client.post("/predict", json={"instances": [ROW], "prediction_id": "one"}).json()
        assert recorded["recorded"]
        client.post("/models/crop-yield/actuals", json={"actuals": [{"prediction_id": "one", "apples": 90}]})
        found = client.get("/models/crop-yield/actuals?window=24h").json()
        assert found["versions"][0]["version"] == number
        table = client.post("/predict?keep=", content=ROWS.replace(",apples,oranges", ",p,q"), headers=CSV)
        assert table.status_code == 422
        assert client.post("/predict", content="temp,rainfall,humidity\n75,63,44\n", headers=CSV).text.split() == [
            "apples,oranges",
            "92.5,127.875",
        ]
        no_bounds = client.post("/predict?interval=0.9", content="temp,rainfall,humidity\n75,63,44\n", headers=CSV)
        refused(no_bounds, 422, IMPORTED)
        client.put("/models/crop-yield/traffic", json={"shadow": 1}).raise_for_status()
        service.predict(ROW)
        wait_for(lambda: client.get("/models/crop-yield/traffic").json()["shadow"]["compared_rows"] == 1)
        wait_for(lambda: client.get("/models/crop-yield/drift").json()["predicted_rows"] >= 3)
        metrics = client.get("/metrics").text
        assert 'linserve_drift_predicted_rows{model="crop-yield"}' in metrics
        assert 'linserve_drift_detected{model="crop-yield"}' not in metrics
        client.put("/models/crop-yield/current", json={"version": 1}).raise_for_status()
        deletion = client.delete(f"/models/crop-yield/versions/{number}")
        assert deletion.status_code == 204
        service.request_record(deletion)
        assert "Traceback" not in service.log.read_text()
    finally:
        service.stop()
