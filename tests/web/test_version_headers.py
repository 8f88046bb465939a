"""The headers with the version that predicted, and with the lowest one that a client accepts."""

import re
from typing import Any

import pytest
from service import Service

ROW = {"instances": [[75, 63, 44]]}
CSV = b"temp,rainfall,humidity\n75,63,44\n"
ONE = "/models/crop-yield/versions/1/predict"


@pytest.mark.parametrize("path", ["/predict", "/models/crop-yield/predict", ONE])
@pytest.mark.parametrize(
    "options",
    [
        {"json": ROW},
        {"json": ROW | {"interval": 0.9}},
        {"json": ROW | {"missing": "null"}},
        {"json": ROW, "headers": {"Accept": "text/csv"}},
        {"content": CSV, "headers": {"Content-Type": "text/csv"}},
        {"content": CSV, "headers": {"Content-Type": "text/csv", "Accept": "application/json"}},
    ],
)
def test_every_prediction_states_its_version(service: Service, path: str, options: dict[str, Any]) -> None:
    response = service.client.post(path, **options)
    assert response.status_code == 200
    assert response.headers.get_list("linserve-version") == ["1"]


@pytest.mark.parametrize("options", [{"json": ROW}, {"content": CSV, "headers": {"Content-Type": "text/csv"}}])
def test_a_prediction_by_an_older_version_than_the_client_accepts_is_refused(
    service: Service, options: dict[str, Any]
) -> None:
    def ask(least: str, path: str = "/predict") -> Any:
        headers = options.get("headers", {}) | {"Linserve-Min-Version": least}
        return service.client.post(path, **(options | {"headers": headers}))

    assert ask("1").headers["linserve-version"] == "1"
    later = ask("2")
    assert (later.status_code, later.headers["retry-after"]) == (503, "1")
    assert "accepts no version below 2" in later.json()["detail"]
    assert ask("1", ONE).status_code == 200
    assert ask("2", "/models/none/predict").status_code == 404
    for least, path in (("0", "/predict"), ("-1", "/predict"), ("one", "/predict"), ("", "/predict"), ("2", ONE)):
        invalid = ask(least, path)
        assert invalid.status_code == 422
        assert "Linserve-Min-Version" in invalid.json()["detail"]
        assert invalid.json()["errors"][0]["parameter"] == "Linserve-Min-Version"


def test_a_lowest_version_that_is_given_twice_is_refused(service: Service) -> None:
    response = service.client.post("/predict", json=ROW, headers=[("Linserve-Min-Version", "1")] * 2)
    assert response.status_code == 422


def test_readiness_names_the_storage(service: Service) -> None:
    ready = service.client.get("/health/ready").json()
    assert ready == {"status": "ready", "model": "crop-yield", "version": 1, "storage": "folder"}


def test_the_headers_of_predictions_are_documented(service: Service) -> None:
    paths = service.client.get("/openapi.json").json()["paths"]
    predictions = re.compile(r"(/predict|/infer|:predict|:explain|/invocations)$")
    operations = [methods["post"] for path, methods in paths.items() if predictions.search(path)]
    assert len(operations) > 10
    for operation in operations:
        assert operation["responses"]["200"]["headers"]["Linserve-Version"]["schema"]["type"] == "integer"
        names = {parameter["name"]: parameter["in"] for parameter in operation["parameters"]}
        assert names["Linserve-Min-Version"] == "header"
