"""Small tables with one trouble each: they train as they come, or the message names the remedy, which works.

tests/tables/manifest.json lists the attempts to train from each file. The right coefficients were found in rational
arithmetic. A refused attempt lists words of its message.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from service import Service

TABLES = Path(__file__).parents[1] / "tables"
MANIFEST: dict[str, Any] = json.loads((TABLES / "manifest.json").read_text())
# The targets of all files. They have 14 rows, with further rows of gaps in one of them.
Y = [62.634, 37.101, 62.206, 54.582, 65.231, 60.5, 53.072, 67.544, 68.652, 67.372, 72.781, 67.449, 41.714, 73.236]


def attempts() -> Iterator[Any]:
    for name, entry in MANIFEST.items():
        for number, attempt in enumerate(entry["attempts"], start=1):
            options = [f"{key}={value}" for key, value in attempt["options"].items() if key != "targets"]
            model = f"table-{[*MANIFEST].index(name)}-{number}"
            yield pytest.param(name, model, attempt, id=" ".join([name, *options]))


def submit(service: Service, name: str, model: str, options: dict[str, str]) -> httpx.Response:
    content, params = (TABLES / name).read_bytes(), {"model": model, **options}
    if name.startswith("jsonbody"):
        params.pop("targets")
        lists = {key: params.pop(key).split(",") for key in ("numbers", "categories") if key in params}
        content, params = json.dumps(json.loads(content) | params | lists).encode(), {}
    answer = service.client.post("/train", params=params, content=content, headers=headers_of(name))
    assert answer.status_code < 500, answer.text
    return answer


def headers_of(name: str) -> dict[str, str]:
    return {"content-type": MANIFEST[name]["content_type"]}


@pytest.fixture(scope="module")
def submitted(service: Service, request: pytest.FixtureRequest) -> dict[str, httpx.Response]:
    """Submit all attempts of the selected tests, so that none waits for a job of another. Return the responses."""
    tests = [item for item in request.session.items if isinstance(item, pytest.Function) and item.path == request.path]
    chosen: list[dict[str, Any]] = [test.callspec.params for test in tests if hasattr(test, "callspec")]
    return {each["model"]: submit(service, each["name"], each["model"], each["attempt"]["options"]) for each in chosen}


def predictions(service: Service, name: str, model: str) -> list[float | None]:
    """Return the predictions for the file that the model was trained on."""
    content = (TABLES / name).read_bytes()
    if name.startswith("jsonbody"):
        content = json.dumps({"instances": json.loads(content)["instances"]}).encode()
    headers = headers_of(name) | {"accept": "application/json"}
    answer = service.client.post(f"/models/{model}/predict", content=content, headers=headers)
    assert answer.status_code == 200, answer.text
    rows = answer.json()["predictions"]
    return [next(iter(row.values() if isinstance(row, dict) else row)) if row else None for row in rows]


@pytest.mark.parametrize(("name", "model", "attempt"), [*attempts()])
def test_a_table_trains_as_it_comes_or_the_message_names_the_remedy(
    service: Service, submitted: dict[str, httpx.Response], name: str, model: str, attempt: dict[str, Any]
) -> None:
    answer = submitted[model]
    job = service.ended_job(answer) if answer.status_code == httpx.codes.ACCEPTED else answer.json()
    if "refused" in attempt:
        problem = job.get("error", job)
        assert problem is not None, job["warnings"]
        message = " ".join([problem["detail"], *(error["detail"] for error in problem.get("errors", []))]).lower()
        assert [word for word in attempt["refused"] if word.lower() not in message] == [], message
        assert problem["status"] == attempt["status"]
        return

    assert job["status"] == "succeeded", job
    card = service.client.get(f"/models/{model}").json()
    (target,) = card["targets"]
    found = {"intercept": card["intercept"][target], **card["coefficients"][target]}
    assert found == pytest.approx(attempt["coefficients"], rel=1e-9)
    text = " ".join(job["warnings"]).lower()
    assert [word for word in attempt.get("warnings", []) if word.lower() not in text] == [], text

    predicted = predictions(service, name, model)
    pairs = [(p, y) for p, y in zip(predicted, Y, strict=False) if p is not None]
    mean = sum(y for _, y in pairs) / len(pairs)
    assert len(pairs) == card["rows"]
    assert sum(p for p, _ in pairs) == pytest.approx(mean * len(pairs), rel=1e-9)
    explained = job["metrics"][target]["r2"] * sum((y - mean) ** 2 for _, y in pairs)
    assert sum((p - mean) ** 2 for p, _ in pairs) == pytest.approx(explained, rel=1e-8)


def test_every_table_is_listed_with_what_to_expect() -> None:
    files = {path.name for path in TABLES.iterdir() if path.is_file()} - {"manifest.json", "README.md"}
    assert files == set(MANIFEST)
    assert len(MANIFEST) == 105
    assert all("coefficients" in attempt or attempt["refused"] for e in MANIFEST.values() for attempt in e["attempts"])
