"""A path prefix of a proxy, which the proxy removes from the path or leaves in it."""

import re
from collections.abc import Iterator

import httpx
import pytest
from service import NOTEBOOK, Service
from threaded_service import ThreadedService

from app.main import app
from app.pages.assets import STATIC
from app.pages.page_route import PageRoute
from app.pages.routes import PAGES
from app.web.paths import first_segments

PREFIX = "/ml"


@pytest.fixture(scope="module")
def prefixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    environment = {"UVICORN_ROOT_PATH": PREFIX}
    running = ThreadedService(tmp_path_factory.mktemp("prefixed"), environment=environment).start()
    yield running
    running.stop()


class Proxy:
    """A proxy whose clients use paths below the prefix."""

    def __init__(self, service: Service, *, removes_prefix: bool) -> None:
        self._service = service
        self._removes_prefix = removes_prefix

    def request(self, method: str, path: str, **options: object) -> httpx.Response:
        assert path.startswith(PREFIX)
        if self._removes_prefix:
            path = path.removeprefix(PREFIX) or "/"
        return self._service.client.request(method, path, **options)  # type: ignore[arg-type]


@pytest.fixture(params=[True, False], ids=["the proxy removes the prefix", "the proxy leaves the prefix"])
def proxy(prefixed: Service, request: pytest.FixtureRequest) -> Proxy:
    return Proxy(prefixed, removes_prefix=request.param)


def test_location_of_a_job_has_the_prefix(proxy: Proxy) -> None:
    response = proxy.request("POST", "/ml/train", json=NOTEBOOK)
    assert response.status_code == 202
    assert response.headers["location"] == f"/ml/jobs/{response.json()['id']}"
    assert proxy.request("GET", response.headers["location"]).json() == response.json()
    assert proxy.request("POST", f"{response.headers['location']}/cancel").json()["status"] == "cancelled"


def test_all_links_of_the_documentation_have_the_prefix(proxy: Proxy) -> None:
    document = proxy.request("GET", "/ml/openapi.json").json()
    assert document["servers"] == [{"url": "/ml"}]
    for path in ("/ml", "/ml/"):
        assert 'href="/ml/docs"' in proxy.request("GET", path, headers={"accept": "text/html"}).text
    page = proxy.request("GET", "/ml/docs").text
    links = re.findall(r"""(?:src|href|url)\s*[=:]\s*["'](/[^"']*)""", page)
    assert len(links) >= 4
    for link in links:
        assert proxy.request("GET", link).status_code == 200, link
    calls = proxy.request("GET", "/ml/").text
    urls = re.findall(r"http://[^/\s]+(/\S*)", calls)
    assert len(urls) > 16
    assert all(url.startswith("/ml/") for url in urls)


def test_responses_are_the_same_as_without_a_prefix(proxy: Proxy) -> None:
    row = {"instances": [[75, 63, 44]]}
    for path in ("/ml/predict", "/ml/models/crop-yield/predict", "/ml/models/crop-yield/versions/1/predict"):
        assert proxy.request("POST", path, json=row).json()["version"] == 1
    assert proxy.request("GET", "/ml/models").status_code == 200
    assert proxy.request("GET", "/ml/health/ready").status_code == 200
    wrong = proxy.request("PATCH", "/ml/models")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    missing = proxy.request("GET", "/ml/elsewhere")
    assert missing.status_code == 404
    assert missing.json()["detail"] == "There is nothing at this path. GET /ml/ lists all calls."
    similar = proxy.request("GET", "/ml/modells").json()["detail"]
    assert similar == "There is nothing at this path. Did you mean /ml/models? GET /ml/ lists all calls."


def test_prefix_that_is_also_a_path_is_not_removed_twice(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    environment = {"UVICORN_ROOT_PATH": "/models"}
    service = ThreadedService(tmp_path_factory.mktemp("awkward"), environment=environment).start()
    try:
        assert service.client.get("/models").json()["items"][0]["model"] == "crop-yield"
        assert service.client.get("/models/crop-yield").json()["version"] == 1
    finally:
        service.stop()


def test_first_segments_of_all_paths_are_known() -> None:
    pages = [route.path for router in PAGES for route in router.routes if isinstance(route, PageRoute)]
    paths = [*app.openapi()["paths"], *pages, STATIC, "/docs", "/openapi.json"]
    assert {path.split("/")[1] for path in paths} == first_segments(app.routes)
