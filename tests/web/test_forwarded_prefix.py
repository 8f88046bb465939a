"""X-Forwarded-Prefix, which names the path prefix that a trusted proxy has removed."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from service import NO_TLS, NOTEBOOK, Service
from sign_in import HTML, KEYS, key_of, sign_in, write_keys
from stripping_proxy import stripping_proxy
from threaded_service import ThreadedService

from app.server.forwarded import MAX_PREFIX_BYTES, forwarded_prefix

OPERATOR = {"x-api-key": key_of("ops")}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("guarded")
    running = ThreadedService(folder, api_keys_file=str(write_keys(folder / "keys", *KEYS))).start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def outside(guarded: Service) -> Iterator[str]:
    """The address of the service below a prefix."""
    with stripping_proxy(guarded.url, "/team/ml") as url:
        yield url


def test_locations_and_documents_have_the_prefix(guarded: Service, outside: str) -> None:
    with httpx.Client(headers=OPERATOR, timeout=60, verify=NO_TLS) as client:
        accepted = client.post(f"{outside}/train", json=NOTEBOOK)
        assert accepted.headers["location"] == f"/team/ml/jobs/{accepted.json()['id']}"
        job = client.get(httpx.URL(outside).join(accepted.headers["location"]))
        assert job.json()["id"] == accepted.json()["id"]
        assert client.get(f"{outside}/openapi.json").json()["servers"] == [{"url": "/team/ml"}]
        page = client.get(f"{outside}/docs").text
        links = re.findall(r"""(?:src|href|url)\s*[=:]\s*["'](/[^"']*)""", page)
        assert len(links) >= 4
        for link in links:
            assert client.get(httpx.URL(outside).join(link)).status_code == 200, link
        missing = client.get(f"{outside}/elsewhere").json()["detail"]
        assert missing == "There is nothing at this path. GET /team/ml/ lists all calls."
        assert client.post(f"{outside}/predict", json={"instances": [[75, 63, 44]]}).json()["version"] == 1
    # The next request on the same connection, without a prefix, has none.
    guarded.client.get("/openapi.json", headers={"X-Forwarded-Prefix": "/once"})
    assert guarded.client.get("/openapi.json").json()["servers"] == [{"url": "/"}]


def test_pages_forms_files_and_cookies_have_the_prefix(outside: str) -> None:
    with httpx.Client(base_url=f"{outside}/", headers=HTML, timeout=60, verify=NO_TLS) as client:
        signed_in = sign_in(client, "ops", "/train")
        assert (signed_in.status_code, signed_in.headers["location"]) == (303, "/team/ml/train")
        assert {cookie.path for cookie in client.cookies.jar} == {"/team/ml"}
        for path in ("", "train", "jobs", "models/crop-yield", "models/crop-yield/versions/1"):
            page = client.get(path)
            assert page.status_code == 200
            links = re.findall(r"""(?:src|href|action|data-[a-z]+)="(/[^"]*)\"""", page.text)
            assert links
            assert [link for link in links if not re.match("/team/ml(/|$)", link)] == []
            for link in {link for link in links if "/static/" in link}:
                assert client.get(httpx.URL(outside).join(link)).status_code == 200, link


def test_a_proxy_may_leave_the_prefix_in_the_path(guarded: Service) -> None:
    headers = {"X-Forwarded-Prefix": "/team/ml/"}
    assert guarded.client.get("/team/ml/health/ready", headers=headers).status_code == 200
    document = guarded.client.get("/team/ml/openapi.json", headers=headers).json()
    assert document["servers"] == [{"url": "/team/ml"}]


def test_only_a_trusted_proxy_can_name_a_prefix_and_it_never_counts_as_this_machine(tmp_path: Path) -> None:
    environment = {"UVICORN_FORWARDED_ALLOW_IPS": "192.0.2.1", "UVICORN_ROOT_PATH": "/usual"}
    service = ThreadedService(tmp_path, environment=environment).start()
    try:
        for other in ({}, {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "127.0.0.1:0"}):
            headers = {"X-Forwarded-Prefix": "/ml", **other}
            assert service.client.get("/openapi.json", headers=headers).json()["servers"] == [{"url": "/usual"}]
            refused = service.client.post("/train", json=NOTEBOOK, headers=headers)
            assert refused.status_code == 403
            assert "through a proxy" in refused.json()["detail"]
    finally:
        service.stop()


@pytest.mark.parametrize("forwarded_for", ["192.0.2.7", "127.0.0.1", "127.0.0.1, 127.0.0.1", ""])
def test_a_prefix_does_not_make_a_request_one_of_this_machine(service: Service, forwarded_for: str) -> None:
    headers = {"X-Forwarded-Prefix": "/ml", "X-Forwarded-For": forwarded_for}
    assert service.client.get("/openapi.json", headers=headers).json()["servers"] == [{"url": "/ml"}]
    assert service.client.post("/train", json=NOTEBOOK, headers=headers).status_code == 403


def test_a_prefix_replaces_that_of_the_command_line(tmp_path: Path) -> None:
    environment = {"UVICORN_ROOT_PATH": "/usual"}
    service = ThreadedService(tmp_path, environment=environment).start()
    try:
        for value, expected in (("/ml", "/ml"), ("/", "/"), ("//other.example", "/usual"), ("ml", "/usual")):
            document = service.client.get("/openapi.json", headers={"X-Forwarded-Prefix": value}).json()
            assert document["servers"] == [{"url": expected}]
    finally:
        service.stop()


@pytest.mark.parametrize(
    ("value", "prefix"),
    [
        (b"/ml", "/ml"),
        (b" /ml/ ", "/ml"),
        (b"/a-b_c~d/v1.2", "/a-b_c~d/v1.2"),
        (b"/", ""),
        (b"", None),
        (b"ml", None),
        (b"//host", None),
        (b"/ml//x", None),
        (b"/.", None),
        (b"/ml/..", None),
        (b"/..%2f", None),
        (b"/ml, /ml", None),
        (b"/ml?x", None),
        (b"/ml#x", None),
        (b"/ml\\x", None),
        (b'/"><script>', None),
        (b"/m\xc3\xa4", None),
        (b"/ml\r", "/ml"),
        (b"/" + b"a" * MAX_PREFIX_BYTES, None),
    ],
)
def test_a_prefix_consists_of_plain_segments(value: bytes, prefix: str | None) -> None:
    assert forwarded_prefix([(b"host", b"x"), (b"x-forwarded-prefix", value)]) == prefix


def test_two_prefixes_are_none() -> None:
    assert forwarded_prefix([(b"x-forwarded-prefix", b"/a"), (b"x-forwarded-prefix", b"/a")]) is None
    assert forwarded_prefix([]) is None
