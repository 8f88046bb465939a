"""What every response has: an id, a log line, a count, the right methods; and the pages for newcomers."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from service import NOTEBOOK, Service
from threaded_service import ThreadedService


def test_request_id_is_kept_or_created_and_logged(service: Service) -> None:
    for given, kept in ((None, "[0-9a-f]{32}"), ("order-66", "order-66"), ('a","level":"ERROR', "[0-9a-f]{32}")):
        response = service.client.get("/health/live", headers={"x-request-id": given} if given else {})
        assert re.fullmatch(kept, response.headers["x-request-id"])
        record = service.request_record(response)
        assert (record["path"], record["status"]) == ("/health/live", 200)


def test_every_log_line_is_a_json_object_with_time_and_level(service: Service) -> None:
    response = service.client.post("/predict", content="nonsense", headers={"content-type": "application/json"})
    service.request_record(response)
    for record in service.records():
        assert {"time", "level", "logger", "message"} <= set(record)


def test_service_without_its_model_is_live_but_not_ready(tmp_path: Path) -> None:
    service = ThreadedService(tmp_path, default_model="crop-yield").start()
    try:
        (service.models / "crop-yield" / "current").unlink()

        assert service.client.get("/health/live").json() == {"status": "live"}
        ready = service.client.get("/health/ready")
        assert ready.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert ready.headers["content-type"] == "application/problem+json"
        assert "retry-after" in ready.headers
        assert service.client.post("/predict", json={"instances": [[1]]}).status_code == httpx.codes.NOT_FOUND
    finally:
        service.stop()


def test_metrics_count_requests_by_route_and_not_by_path(service: Service) -> None:
    def counts() -> dict[str, float]:
        lines = service.client.get("/metrics").text.splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    before = counts()
    for model in ("crop-yield", "zebra-1", "zebra-2"):
        service.client.post(f"/models/{model}/predict", json={"instances": [[1, 2, 3]]})
    service.client.request("ZEBRA", "/zebra")
    after = counts()

    served = 'linserve_requests_total{method="POST",protocol="linserve",route="/models/{model}/predict",status="200"}'
    missing = 'linserve_requests_total{method="POST",protocol="linserve",route="/models/{model}/predict",status="404"}'
    assert after[served] - before.get(served, 0) == 1
    assert after[missing] - before.get(missing, 0) == 2
    assert after["linserve_predicted_rows_total"] - before["linserve_predicted_rows_total"] == 1
    assert "zebra" not in service.client.get("/metrics").text.lower()


@pytest.fixture(scope="module")
def queueing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service without a trainer, so that jobs stay in the queue."""
    running = ThreadedService(tmp_path_factory.mktemp("queueing")).start()
    yield running
    running.stop()


def test_metrics_have_the_number_of_unfinished_jobs(queueing: Service) -> None:
    def unfinished(status: str) -> float:
        name = f'linserve_jobs{{status="{status}"}} '
        lines = queueing.client.get("/metrics").text.splitlines()
        return next(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    before = unfinished("queued")
    for _ in range(2):
        queueing.submit(**NOTEBOOK)
    assert unfinished("queued") == before + 2
    assert unfinished("running") == 0


def test_log_lines_of_a_training_and_its_cancellation_name_the_job(service: Service) -> None:
    training = service.client.post("/train", json={**NOTEBOOK, "promote": "never"})
    job = training.json()["id"]
    cancellation = service.client.post(f"/jobs/{job}/cancel")
    assert service.request_record(training)["job"] == job
    assert service.request_record(cancellation)["job"] == job


VERSION = "/models/crop-yield/versions/1"
ALLOWED = {
    "/predict": "POST, OPTIONS",
    "/models": "GET, HEAD, OPTIONS",
    VERSION: "GET, DELETE, HEAD, OPTIONS",
    "/models/crop-yield/current": "PUT, OPTIONS",
    "/docs": "GET, HEAD, OPTIONS",
    "/docs/assets/swagger-ui.css": "GET, HEAD, OPTIONS",
    "/openapi.json": "GET, HEAD, OPTIONS",
}


@pytest.mark.parametrize(("path", "allowed"), ALLOWED.items())
def test_unsupported_method_gets_the_supported_ones(service: Service, path: str, allowed: str) -> None:
    response = service.client.patch(path)

    assert response.status_code == httpx.codes.METHOD_NOT_ALLOWED
    assert response.headers["allow"] == allowed
    assert response.json()["type"] == "urn:linserve:problem:method-not-allowed"


@pytest.mark.parametrize(("path", "allowed"), ALLOWED.items())
def test_options_lists_the_supported_methods(service: Service, path: str, allowed: str) -> None:
    response = service.client.options(path)

    assert response.status_code == httpx.codes.NO_CONTENT
    assert response.headers["allow"] == allowed
    assert response.content == b""
    assert service.client.options("/nothing").status_code == httpx.codes.NOT_FOUND


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/docs",
        "/openapi.json",
        "/docs/assets/swagger-ui.css",
        "/health/ready",
        "/jobs",
        VERSION,
        "/predict",
        "/no",
    ],
)
def test_head_gets_the_headers_of_get(service: Service, path: str) -> None:
    service.finish_jobs()
    got, head = service.client.get(path), service.client.head(path)

    assert head.content == b""
    assert head.status_code == got.status_code
    for response in (got, head):
        for own_header in ("date", "x-request-id"):
            del response.headers[own_header]
    assert head.headers == got.headers


def test_head_of_events_does_not_wait_for_the_job_to_end(queueing: Service) -> None:
    job = queueing.submit(**NOTEBOOK)
    head = queueing.client.head(f"/jobs/{job}/events")

    assert head.status_code == httpx.codes.OK
    assert head.headers["content-type"].startswith("text/event-stream")
    assert queueing.job(job)["status"] == "queued"


def test_head_is_counted_by_its_route(service: Service) -> None:
    line = 'linserve_requests_total{method="HEAD",protocol="",route="/models/{model}",status="200"}'
    service.client.head("/models/crop-yield")

    assert line in service.client.get("/metrics").text


def test_the_front_page_lists_every_call_for_curl(service: Service) -> None:
    text = service.client.get("/").text
    document = service.client.get("/openapi.json").json()

    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len(operations) > 36
    for operation in operations:
        assert operation["summary"] in text
    assert text.count("\n  curl ") == len(operations)
    assert f"{service.url}/predict" in text


def test_the_documentation_names_operations_schemas_and_problems(service: Service) -> None:
    document = service.client.get("/openapi.json").json()

    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(set(names)) == len(names)
    assert {"predict", "train", "getJob", "listJobs", "cancelJob", "promote"} <= set(names)
    text = json.dumps(document)
    for reference in set(re.findall(r'"#/components/schemas/([^"]+)"', text)):
        assert reference in document["components"]["schemas"]
    assert "HTTPValidationError" not in text
    problems = document["paths"]["/predict"]["post"]["responses"]["422"]["content"]
    assert list(problems) == ["application/problem+json"]


@pytest.mark.parametrize("path", ["/predict", "/train", "/models/{model}/predict"])
def test_every_example_in_the_documentation_works(service: Service, path: str) -> None:
    document = service.client.get("/openapi.json").json()
    content = document["paths"][path]["post"]["requestBody"]["content"]
    examples = [example["value"] for example in content["application/json"]["examples"].values()]

    assert examples
    for example in examples:
        body = {**example, "promote": "never"} if path == "/train" else example
        response = service.client.post(path.replace("{model}", "crop-yield"), json=body, headers={"prefer": "wait=60"})
        if "source" in example:  # It names a bucket that only an operator can allow.
            assert "LINSERVE_SOURCES" in response.json()["detail"]
            continue
        if path == "/train":
            assert service.ended_job(response)["status"] == "succeeded"
        else:
            assert response.status_code == httpx.codes.OK, response.text


def test_successful_predictions_are_logged_only_if_the_setting_says_so(tmp_path: Path) -> None:
    for setting in ("false", "true"):
        folder = tmp_path / setting
        folder.mkdir()
        own = ThreadedService(folder, log_predictions=setting).start()
        own.predict([75, 63, 44])  # on the fast path
        own.predict([75, 63, 44], explain=True)  # by the route
        own.client.post("/predict", json={})
        own.stop()
        requests = [record for record in own.records() if record["message"] == "request"]
        statuses = [record["status"] for record in requests if record["path"] == "/predict"]
        assert statuses == ([200, 200, 422] if setting == "true" else [422])


def test_log_line_of_a_rejected_request_has_the_reason(service: Service) -> None:
    response = service.client.get("/jobs/nothing")
    record = service.request_record(response)
    assert (record["level"], record["status"], record["problem"]) == ("INFO", 404, "Job not found")
    assert record["reason"] == response.json()["detail"]


def test_options_of_the_whole_service_are_answered(service: Service) -> None:
    address = httpx.URL(service.url)
    with socket.create_connection((address.host, address.port or 0), timeout=60) as connection:
        connection.sendall(b"OPTIONS * HTTP/1.1\r\nhost: here\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 204 ")


@pytest.mark.parametrize("wanted", ["bytes=z-", "bytes=99999999-", "bytes=0-1"])
def test_files_of_the_documentation_ignore_ranges(service: Service, wanted: str) -> None:
    path = "/docs/assets/swagger-ui.css"
    whole = service.client.get(path)
    response = service.client.get(path, headers={"range": wanted})
    assert (response.status_code, response.content) == (httpx.codes.OK, whole.content)


JSON = ("content-type", "application/json")
PLAIN = ("content-encoding", "identity")


@pytest.mark.parametrize("body", [{"instances": [[75, 63, 44]]}, {"instances": [[75, 63, 44]], "explain": True}])
@pytest.mark.parametrize("headers", [[JSON, JSON], [JSON, PLAIN, PLAIN]])
def test_a_body_has_one_content_type_and_one_encoding(
    service: Service, headers: list[tuple[str, str]], body: dict[str, Any]
) -> None:
    response = service.client.post("/predict", content=json.dumps(body), headers=headers)
    assert response.status_code == httpx.codes.UNSUPPORTED_MEDIA_TYPE
