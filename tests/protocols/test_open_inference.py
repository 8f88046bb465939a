"""Triton's and KServe's own clients of the Open Inference Protocol, against a service with keys."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from programs import python_with, run_program
from service import ROOT, Service

PROGRAMS = ROOT / "tests" / "protocols" / "programs"
KEY = "a-key-of-the-client"
APPLES, ORANGES = [57.32309988948519, 81.80747954914833], [69.54267150942283, 101.06464151471732]
PREDICT = [list(row) for row in zip(APPLES, ORANGES, strict=True)]
MIXED = "age,region,day,yes,price\n" + "".join(
    f"{row},{('north', 'süd', 'west')[row % 3]},2020-01-{row % 28 + 1:02d},{row % 2 == 0},{row * 2 + row % 5}\n"
    for row in range(60)
)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that requires a key, with a model of words, booleans and dates."""
    folder = tmp_path_factory.mktemp("guarded")
    keys = folder / "keys"
    keys.write_text(f"client predict,train {hashlib.sha256(KEY.encode()).hexdigest()}\n")
    service = Service(folder, api_keys_file=str(keys)).start()
    headers = {"content-type": "text/csv", "prefer": "wait=60", "x-api-key": KEY}
    service.client.headers["x-api-key"] = KEY
    answer = service.client.post(
        "/train", params={"model": "mixed", "targets": "price"}, content=MIXED.encode(), headers=headers
    )
    assert service.ended_job(answer)["status"] == "succeeded"
    yield service
    service.stop()


def found(service: Service, name: str, packages: str, folder: Path) -> dict[str, Any]:
    program = (PROGRAMS / f"{name}.py").read_text()
    printed: dict[str, Any] = json.loads(run_program(python_with(packages), program, folder, URL=service.url, KEY=KEY))
    return printed


def test_tritons_client_gets_metadata_predictions_and_errors(guarded: Service, tmp_path: Path) -> None:
    answers = found(guarded, "triton", "triton", tmp_path)

    ready = [answers[name] for name in ("live", "ready", "model_ready", "version_ready", "other_ready")]
    assert ready == [True, True, True, True, False]
    assert answers["server"]["extensions"] == ["binary_tensor_data"]
    assert [tensor["name"] for tensor in answers["metadata"]["inputs"]] == ["temp", "rainfall", "humidity"]
    assert {"name": "crop-yield", "version": "1", "state": "READY", "reason": ""} in answers["index"]
    for name in ("whole", "version", "json", "gzip", "deflate", "threaded", "aio"):
        assert [pytest.approx(row) for row in PREDICT] == answers[name], name
    assert len(answers["by_feature"]) == 2 * 11
    for apples in answers["by_feature"]:
        assert apples == [[pytest.approx(value)] for value in APPLES]
    assert answers["named"]["id"] == "7"
    assert answers["named"]["outputs"] == ["oranges", "apples_upper"]
    assert answers["named"]["oranges"] == [[pytest.approx(value)] for value in ORANGES]
    assert all(upper[0] > value for upper, value in zip(answers["named"]["upper"], APPLES, strict=True))
    rows = [
        {"age": 1.0, "region": "north", "day": "2020-01-02", "yes": True},
        {"age": 2.0, "region": "süd", "day": "2020-01-03", "yes": False},
    ]
    native = guarded.client.post("/models/mixed/predict", json={"instances": rows}).json()["predictions"]
    assert answers["mixed"] == [[[row["price"]] for row in native]] * 2
    statuses = [status for status, _ in answers["errors"]]
    assert statuses == ["404", "400", "400", "400", "404", "404"]
    messages = [message for _, message in answers["errors"]]
    assert messages[0].startswith('There is no model "nothing".')
    assert messages[1].startswith('Tensor "any": Expected the shape [n, 3], found [2, 2].')
    assert messages[2].startswith('Tensor "any", index 0, 0: The value is missing')
    assert "NaN" in messages[3]
    assert all("decoding the response" not in message for message in messages)


def test_kserves_client_gets_predictions_and_errors(guarded: Service, tmp_path: Path) -> None:
    answers = found(guarded, "kserve_v2", "kserve", tmp_path)

    assert [answers[name] for name in ("live", "ready", "model_ready", "other_ready")] == [True, True, True, False]
    assert answers["id"] == "7"
    for name in ("json", "binary"):
        assert answers[name] == [["predict", [pytest.approx(row) for row in PREDICT]]]
    assert answers["named"] == [
        ["apples", [[pytest.approx(value)] for value in APPLES]],
        ["oranges", [[pytest.approx(value)] for value in ORANGES]],
    ]
    assert [status for status, _ in answers["errors"]] == [404, 400]
    assert answers["errors"][1][1].startswith('Tensor "input-0": Expected the shape [n, 3], found [2, 2].')
