"""Jobs by model, status and time, in pages; the newest job as `latest`; unknown query parameters."""

from typing import Any

import pytest
from service import NOTEBOOK, Service
from threaded_service import ThreadedService

from app.web.protocols import PROTOCOL_OF_ROUTE

NAMES: dict[str, Any] = {"feature_names": ["temp", "rainfall", "humidity"], "target_names": ["apples", "oranges"]}


@pytest.fixture(scope="module")
def jobs(service: Service) -> list[dict[str, Any]]:
    """Six jobs, oldest first, alternately of two models. The last two failed."""
    found = []
    for number in range(6):
        solver = {"kind": "gradient_descent", "learning_rate": 1.0} if number > 3 else {"kind": "exact"}
        found.append(service.train(**NOTEBOOK, **NAMES, model=f"listed-{number % 2}", solver=solver))
    return found


def ids(service: Service, **query: object) -> list[str]:
    answer = service.client.get("/jobs", params=query)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    return [job["id"] for job in answer.json()["items"]]


def test_jobs_are_listed_by_model_status_and_time(service: Service, jobs: list[dict[str, Any]]) -> None:
    since = jobs[2]["created_at"]
    newest_first = jobs[::-1]
    later = [job for job in newest_first if job["created_at"] >= since]  # several jobs may have the same second
    known = {job["id"] for job in jobs}
    of_one = [job["id"] for job in newest_first if job["model"] == "listed-1"]
    assert ids(service, model="listed-1") == of_one
    assert ids(service, model="listed-1", status="succeeded") == of_one[1:]
    assert ids(service, model="listed-1", status="failed", since=since) == of_one[:1]
    assert ids(service, model="listed-1", since=since) == [job["id"] for job in later if job["model"] == "listed-1"]
    assert [job for job in ids(service, since=since) if job in known] == [job["id"] for job in later]
    failed = [job for job in ids(service, status="failed", since=since) if job in known]
    assert failed == [jobs[5]["id"], jobs[4]["id"]]
    assert ids(service, model="nobody") == ids(service, since="2999-01-01T00:00:00+01:00") == []


@pytest.mark.parametrize("repeats", [True, False], ids=["with the filter", "with the token alone"])
def test_pages_of_a_filtered_list_are_all_its_jobs(
    service: Service, jobs: list[dict[str, Any]], *, repeats: bool
) -> None:
    wanted = {"model": "listed-0", "since": jobs[0]["created_at"]}
    query: dict[str, Any] = {**wanted, "limit": 1}
    found = []
    while True:
        page = service.client.get("/jobs", params=query).json()
        found += [job["id"] for job in page["items"]]
        if page["next"] is None:
            break
        query = {"limit": 1, "next": page["next"]} | (wanted if repeats else {})
    assert found == [job["id"] for job in jobs[::-1] if job["model"] == "listed-0"]


def test_a_token_of_another_list_is_refused(service: Service, jobs: list[dict[str, Any]]) -> None:
    assert jobs
    token = service.client.get("/jobs?model=listed-0&limit=1").json()["next"]
    answer = service.client.get("/jobs", params={"model": "listed-1", "next": token})
    assert answer.status_code == 422
    assert "another filter" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("since=yesterday", "since"),
        ("since=2026-01-01", "since"),
        ("since=2026-01-01T00:00:00", "since"),
        ("since=2026-01-01T00:00:00+01:00", "since"),  # + is a space in a query
        ("since=0001-01-01T00:00:00%2B14:00", "since"),
        ("since=", "since"),
        ("model=Not+a+model", "model"),
        ("model=", "model"),
        ("status=done", "status"),
    ],
)
def test_an_invalid_filter_is_refused_with_its_name(service: Service, query: str, parameter: str) -> None:
    answer = service.client.get(f"/jobs?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == parameter


def test_latest_is_the_newest_job(service: Service) -> None:
    service.train(**NOTEBOOK, promote="never")
    job = service.train(**NOTEBOOK, promote="never")  # usually within the same second
    assert service.job("latest") == job
    assert service.end_of("latest") == job
    cancelled = service.client.post("/jobs/latest/cancel")
    assert (cancelled.status_code, cancelled.json()) == (200, job)
    assert service.client.get("/jobs/latest?model=crop-yield").status_code == 422


def test_without_jobs_there_is_no_latest_job(tmp_path_factory: pytest.TempPathFactory) -> None:
    service = ThreadedService(tmp_path_factory.mktemp("no-jobs")).start()
    try:
        for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
            answer = service.client.request(method, f"/jobs/latest{path}")
            assert (answer.status_code, answer.json()["detail"]) == (404, "There is no job yet.")
        waiting = service.submit(**NOTEBOOK)
        assert service.client.post("/jobs/latest/cancel").json()["id"] == waiting
        assert service.job(waiting)["status"] == "cancelled"
    finally:
        service.stop()


def test_every_operation_refuses_unknown_parameters(service: Service) -> None:
    paths = service.client.get("/openapi.json").json()["paths"]
    filled = {"model": "crop-yield", "version": "1", "job": "latest", "alias": "current"}
    service.train(**NOTEBOOK, promote="never")
    for path, operations in paths.items():
        if PROTOCOL_OF_ROUTE.get(path, "linserve") != "linserve":
            continue  # Clients of other protocols add parameters of their own.
        for method in operations:
            answer = service.client.request(
                method,
                f"{path.format(**filled)}?stauts=failed{'&format=json' * path.endswith('/export')}",
                content="x\n1\n",
                headers={"if-match": "*", "content-type": "text/csv"},
            )
            assert answer.status_code == 422, (method, path, answer.text)
            (error,) = answer.json()["errors"]
            assert error["parameter"] == "stauts"
            assert error["detail"].startswith('There is no such option: "stauts".')


@pytest.mark.parametrize(
    "path", ["/jobs?limit=1&limit=2", "/models?limit=1&limit=2", "/models/crop-yield?level=0.9&level=0.8"]
)
def test_a_parameter_that_is_given_twice_is_refused(service: Service, path: str) -> None:
    answer = service.client.get(path)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["detail"].startswith("Option given more than once: ")


def test_several_prefer_fields_are_one_list(service: Service) -> None:
    body = {**NOTEBOOK, "promote": "never"}
    fields = [("prefer", "respond-async"), ("prefer", "wait=60")]
    answer = service.client.post("/train", json=body, headers=fields)
    found = answer.status_code, answer.headers["preference-applied"]
    assert found in ((200, "wait=60"), (202, "respond-async, wait=60"))  # On a busy machine, the job takes longer.
    answer = service.client.post("/train", json=body, headers={"prefer": "respond-async"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "respond-async")
