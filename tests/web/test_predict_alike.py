"""A row gets the same bits from every format, alone and among any number of others."""

import io
from typing import Any

import mixed
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from mixed import FEATURES, publish, version_of_table
from service import Service
from tables import MEDIA_TYPES, written

from app.prediction.predictor import MAX_INLINE_MULTIPLIES
from app.regression.linear_model import MAX_PYTHON_MULTIPLIES
from app.regression.ordered_sum import MAX_ORDERED

JSON = "application/json"


def trained(service: Service, model: str, x: np.ndarray[Any, Any], targets: int, terms: list[str] | None = None) -> str:
    random = np.random.default_rng(0)
    y = (x - x[0]) @ random.normal(size=(x.shape[1], targets)) + random.normal(size=(len(x), targets))
    job = service.train(
        instances=x.tolist(),
        targets=y.tolist(),
        model=model,
        feature_names=[f"x{index}" for index in range(x.shape[1])],
        target_names=[f"y{index}" for index in range(targets)],
        terms=terms,
    )
    assert job["status"] == "succeeded", job
    return f"/models/{model}/predict"


def answers(service: Service, path: str, table: pa.Table) -> dict[str, list[list[float]]]:
    """Return the predictions for these rows, by the formats of request and response."""
    instances = [[*row.values()] for row in table.to_pylist()]
    arrays = service.client.post(path, json={"instances": instances}).json()["predictions"]
    objects = service.client.post(path, json={"instances": table.to_pylist()}).json()["predictions"]
    found = {"arrays": arrays, "objects": [list(row.values()) for row in objects]}
    ways: list[tuple[str, str]] = [(form, "json") for form in MEDIA_TYPES]
    ways += [("arrow", form) for form in MEDIA_TYPES]
    for into, out in ways:
        accepted = JSON if out == "json" else MEDIA_TYPES[out]
        headers = {"content-type": MEDIA_TYPES[into], "accept": accepted}
        answer = service.client.post(path, content=written(table, into), headers=headers)
        assert answer.status_code == 200, answer.text
        found[f"{into} to {out}"] = rows_of(answer.content, out)
    content, headers = orjson.dumps({"instances": instances}), {"content-type": JSON, "accept": "text/csv"}
    found["arrays to csv"] = rows_of(service.client.post(path, content=content, headers=headers).content, "csv")
    return found


def rows_of(content: bytes, form: str) -> list[list[float]]:
    if form == "json":
        return [list(row.values()) for row in orjson.loads(content)["predictions"]]
    if form == "ndjson":
        return [list(orjson.loads(line).values()) for line in content.splitlines()]
    if form == "csv":
        return [list(map(float, line.split(b","))) for line in content.splitlines()[1:]]
    file = io.BytesIO(content)
    table = pa.ipc.open_stream(file).read_all() if form == "arrow" else pyarrow.parquet.read_table(file)
    return [list(row.values()) for row in table.to_pylist()]


@pytest.mark.parametrize(
    "kind", ["ordinary", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("far", "widest", "terms"))]
)
def test_a_row_gets_the_same_bits_from_every_format_and_among_any_other_rows(service: Service, kind: str) -> None:
    random = np.random.default_rng(len(kind))
    features, targets, terms = ["temp", "rainfall", "humidity"], 2, None
    path, x = "/predict", random.normal(70, 20, size=(4000, 3))
    if kind != "ordinary":
        p = {"far": 2, "widest": MAX_ORDERED, "terms": 2}[kind]
        targets = 1 if kind == "widest" else 2
        x = random.normal(size=(4000 if kind != "widest" else 700, p)) * 1000
        x = np.round(x) + (2.0**51 if kind == "far" else 0.25)
        features = [f"x{index}" for index in range(p)]
        terms = ["x0", "x1^3", "x0^2:x1"] if kind == "terms" else None
        path = trained(service, f"alike-{kind}", x[:60], targets, terms)
    size = (3 if terms else x.shape[1]) * targets
    few, many = MAX_PYTHON_MULTIPLIES // size, MAX_INLINE_MULTIPLIES // size
    whole = service.client.post(path, json={"instances": x.tolist()}).json()["predictions"]
    for row in (0, 1, 2, 3, few, len(x) - 1):
        assert service.client.post(path, json={"instances": [x[row].tolist()]}).json()["predictions"] == [whole[row]]
    for rows in {1, 2, few, few + 1, 129, min(many, len(x)), min(many + 1, len(x))} - {0}:
        for way, found in answers(service, path, pa.table(dict(zip(features, x[:rows].T, strict=True)))).items():
            assert found == whole[:rows], (way, rows)


@pytest.mark.parametrize("terms", [[], ["species", "age^2", "age:wild", "seen"]])
def test_a_row_of_words_and_dates_gets_the_same_bits_from_every_format(service: Service, terms: list[str]) -> None:
    version = version_of_table(terms=terms)
    publish(service.models, version, f"alike-kinds-{len(terms)}")
    path, rows = f"/models/alike-kinds-{len(terms)}/predict", pa.table(mixed.rows_of(FEATURES, 400))
    whole = service.client.post(path, json={"instances": rows.to_pylist()}).json()["predictions"]
    expected = [[*row.values()] for row in whole]
    few = MAX_PYTHON_MULTIPLIES // version.model.coef.size
    for count in (1, few, few + 1, 129):
        for way, found in answers(service, path, rows.slice(0, count)).items():
            assert found == expected[:count], (way, count)


def test_a_model_far_from_zero_answers_the_same_prediction_in_every_part(service: Service) -> None:
    steps = np.random.default_rng(1).integers(-1000, 1000, size=(40, 2))
    path = trained(service, "alike-parts", 2.0**51 + steps, 1)
    near = trained(service, "alike-near", steps.astype(float), 1)
    body = {"interval": 0.9, "confidence": 0.8, "explain": True}
    far = service.client.post(path, json={"instances": (2.0**51 + steps[:5]).tolist(), **body}).json()
    expected = service.client.post(near, json={"instances": steps[:5].tolist(), **body}).json()
    for part in ("predictions", "intervals", "confidence_intervals", "contributions", "baseline"):
        np.testing.assert_allclose(far[part], expected[part], rtol=0, atol=1e-8)
    for prediction, contributions in zip(far["predictions"], far["contributions"], strict=True):
        assert far["baseline"][0] + sum(contributions[0]) == pytest.approx(prediction[0], abs=1e-9)
    rows = [{"x0": a, "x1": b} for a, b in (2.0**51 + steps[:5]).tolist()]
    table = service.client.post(
        path, params={"interval": 0.9}, json={"instances": rows}, headers={"accept": JSON}
    ).json()["predictions"]
    for row, prediction, (bounds,) in zip(table, far["predictions"], far["intervals"], strict=True):
        assert [row["y0"], row["y0_lower"], row["y0_upper"]] == [prediction[0], *bounds]
