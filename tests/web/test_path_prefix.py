"""Behind a proxy, below a prefix, which the proxy may remove from the path or leave in it."""

import re
from collections.abc import Iterator

import httpx
import pytest
from service import NOTEBOOK, Service

from app.main import OWN_PATHS, app

PREFIX = "/ml"


@pytest.fixture(scope="module")
def prefixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    environment = {"UVICORN_ROOT_PATH": PREFIX}
    running = Service(tmp_path_factory.mktemp("prefixed"), trainer_mode="external", environment=environment).start()
    yield running
    running.stop()


class Proxy:
    """What a client sees: paths below the prefix."""

    def __init__(self, service: Service, *, removes_prefix: bool) -> None:
        self._service = service
        self._removes_prefix = removes_prefix

    def ask(self, method: str, path: str, **options: object) -> httpx.Response:
        assert path.startswith(PREFIX)
        if self._removes_prefix:
            path = path.removeprefix(PREFIX) or "/"
        return self._service.client.request(method, path, **options)  # type: ignore[arg-type]


@pytest.fixture(params=[True, False], ids=["the proxy removes the prefix", "the proxy leaves the prefix"])
def proxy(prefixed: Service, request: pytest.FixtureRequest) -> Proxy:
    return Proxy(prefixed, removes_prefix=request.param)


def test_the_location_of_a_job_leads_to_the_job(proxy: Proxy) -> None:
    answer = proxy.ask("POST", "/ml/train", json=NOTEBOOK)
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/ml/jobs/{answer.json()['id']}"
    assert proxy.ask("GET", answer.headers["location"]).json() == answer.json()
    assert proxy.ask("POST", f"{answer.headers['location']}/cancel").json()["status"] == "cancelled"


def test_the_documentation_names_the_prefix_everywhere(proxy: Proxy) -> None:
    document = proxy.ask("GET", "/ml/openapi.json").json()
    assert document["servers"] == [{"url": "/ml"}]
    for path in ("/ml", "/ml/"):
        found = proxy.ask("GET", path, headers={"accept": "text/html"}, follow_redirects=False)
        assert found.headers["location"] == "/ml/docs"
    page = proxy.ask("GET", "/ml/docs").text
    links = re.findall(r"""(?:src|href|url)\s*[=:]\s*["'](/[^"']*)""", page)
    assert len(links) >= 4
    for link in links:
        assert proxy.ask("GET", link).status_code == 200, link
    calls = proxy.ask("GET", "/ml/").text
    urls = re.findall(r"http://[^/\s]+(/\S*)", calls)
    assert len(urls) > 16
    assert all(url.startswith("/ml/") for url in urls)


def test_calls_answer_as_without_a_prefix(proxy: Proxy) -> None:
    row = {"instances": [[75, 63, 44]]}
    for path in ("/ml/predict", "/ml/models/crop-yield/predict", "/ml/models/crop-yield/versions/1/predict"):
        assert proxy.ask("POST", path, json=row).json()["version"] == 1
    assert proxy.ask("GET", "/ml/models").status_code == 200
    assert proxy.ask("GET", "/ml/health/ready").status_code == 200
    wrong = proxy.ask("PATCH", "/ml/models")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    missing = proxy.ask("GET", "/ml/nothing")
    assert missing.status_code == 404
    assert missing.json()["detail"] == "There is nothing at this path. GET /ml/ lists all calls."
    similar = proxy.ask("GET", "/ml/modells").json()["detail"]
    assert similar == "There is nothing at this path. Did you mean /ml/models? GET /ml/ lists all calls."


def test_a_prefix_that_is_a_path_of_the_service_is_not_removed_twice(tmp_path_factory: pytest.TempPathFactory) -> None:
    environment = {"UVICORN_ROOT_PATH": "/models"}
    service = Service(tmp_path_factory.mktemp("awkward"), trainer_mode="external", environment=environment).start()
    try:
        assert service.client.get("/models").json()["items"][0]["model"] == "crop-yield"
        assert service.client.get("/models/crop-yield").json()["version"] == 1
    finally:
        service.stop()


def test_the_first_words_of_all_paths_are_known() -> None:
    paths = [*app.openapi()["paths"], "/docs", "/openapi.json"]
    assert {path.split("/")[1] for path in paths} == OWN_PATHS
