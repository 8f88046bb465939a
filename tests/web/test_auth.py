"""Authorization, with and without API keys."""

import hashlib
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from buckets import FaultyProxy, bucket_url, faulty_proxy
from hypothesis import given
from hypothesis import strategies as st
from service import NOTEBOOK, Service, wait_for
from threaded_service import ThreadedService

from app.errors import Forbidden, Unavailable
from app.storage import Store, open_store
from app.web.auth import AccessScope, Authorizer
from app.web.key_files import StoredKeyFile, parse_keys

ROWS = {"instances": [[75, 63, 44]]}
SECRETS = {"web": "secret-of-web", "cron": "secret-of-cron", "both": "secret-of-both", "ops": "secret-of-ops"}
# Operations that need no key.
PROBES = (
    "/health/live",
    "/health/ready",
    "/metrics",
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models/{model}/ready",
    "/v2/models/{model}/versions/{version}/ready",
    "/v1/models/{model}",
    "/v1/models/{model}/versions/{version}",
    "/health",
    "/ping",
    "/version",
    "/vertex/health",
)
SCOPES = {"web": "predict", "cron": "train", "both": "predict,train", "ops": "admin"}


def line(name: str, scopes: str, secret: str) -> str:
    return f"{name} {scopes} {hashlib.sha256(secret.encode()).hexdigest()}\n"


def lines(*names: str) -> str:
    return "".join(line(name, SCOPES[name], SECRETS[name]) for name in names)


class Guarded(NamedTuple):
    service: Service
    keys: Path

    def ask(self, call: str, who: str | None = None, **options: Any) -> httpx.Response:
        method, _, path = call.partition(" ")
        headers = {"authorization": f"Bearer {SECRETS[who]}"} if who else {}
        return self.service.client.request(method, path, headers=headers, **options)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    keys = folder / "keys"
    keys.write_text(f"# keys\n\n{lines(*SECRETS)}")
    service = ThreadedService(folder, api_keys_file=str(keys)).start()
    yield Guarded(service, keys)
    service.stop()


ALLOWED = {
    "POST /predict": {"web", "both", "ops"},
    "POST /models/crop-yield/predict": {"web", "both", "ops"},
    "POST /models/crop-yield/versions/1/predict": {"web", "both", "ops"},
    "POST /train": {"cron", "both", "ops"},
    "GET /models": set(SECRETS),
    "GET /models/crop-yield": set(SECRETS),
    "GET /models/crop-yield/versions/1": set(SECRETS),
    "GET /models/crop-yield/versions/1/file": set(SECRETS),
    "GET /models/crop-yield/versions/1/export?format=python": set(SECRETS),
    "GET /models/crop-yield/export?format=linserve": set(SECRETS),
    "GET /models/crop-yield/drift": set(SECRETS),
    "GET /models/crop-yield/events?events=1": set(SECRETS),
    "GET /jobs": set(SECRETS),
    "GET /jobs/no-job": set(SECRETS),
    "GET /jobs/no-job/events": set(SECRETS),
    "POST /jobs/no-job/cancel": {"cron", "both", "ops"},
    "PUT /models/crop-yield/current": {"ops"},
    "DELETE /models/crop-yield/versions/99": {"ops"},
    "DELETE /models/no-model": {"ops"},
}
BODIES = {"POST /train": {**NOTEBOOK, "promote": "never"}, "PUT /models/crop-yield/current": {"version": 1}}


@pytest.mark.parametrize("call", ALLOWED)
def test_key_permits_exactly_what_its_scopes_cover(guarded: Guarded, call: str) -> None:
    body = BODIES.get(call, ROWS if "predict" in call else None)
    for name in SECRETS:
        response = guarded.ask(call, name, json=body)
        if name in ALLOWED[call]:
            assert response.status_code in (200, 202, 404), response.text
        else:
            assert response.status_code == httpx.codes.FORBIDDEN
            assert "scope" in response.json()["detail"]
    response = guarded.ask(call, json=body)
    assert response.status_code == httpx.codes.UNAUTHORIZED
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", *PROBES])
def test_probes_and_documentation_need_no_key(guarded: Guarded, path: str) -> None:
    path = path.format(model="crop-yield", version=1)
    assert guarded.service.client.get(path).status_code == httpx.codes.OK


def test_openapi_document_declares_the_keys(guarded: Guarded) -> None:
    document = guarded.service.client.get("/openapi.json").json()
    assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}
    assert {name for way in document["security"] for name in way} == {"bearer", "header"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            needs_key = path not in PROBES
            assert (operation.get("security") != []) == needs_key
            assert ({"401", "403"} <= set(operation["responses"])) == needs_key


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer wrong"},
        {"authorization": SECRETS["ops"]},
        {"authorization": f"Basic {SECRETS['ops']}"},
        {"authorization": "Bearer"},
        {"authorization": f"Bearer {SECRETS['ops']} "[:-2]},
        {"x-api-key": ""},
        {"x-api-key": hashlib.sha256(SECRETS["ops"].encode()).hexdigest()},
        {"x-api-key": SECRETS["ops"], "authorization": f"Bearer {SECRETS['web']}"},
        {"x-api-key": "\u00e9"},
    ],
)
def test_invalid_key_is_rejected_on_and_off_the_fast_path(guarded: Guarded, headers: dict[str, str]) -> None:
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    for body in (ROWS, {**ROWS, "explain": True}):
        response = guarded.service.client.post("/predict", json=body, headers=encoded)
        assert response.status_code == httpx.codes.UNAUTHORIZED
        assert "secret" not in response.text


def test_both_headers_accept_a_key(guarded: Guarded) -> None:
    given = [{"x-api-key": SECRETS["web"]}, {"authorization": f"bearer  {SECRETS['web']}"}]
    for headers in given:
        assert guarded.service.client.post("/predict", json=ROWS, headers=headers).status_code == httpx.codes.OK


def test_keys_change_without_a_restart_and_secrets_are_not_logged(guarded: Guarded) -> None:
    before = guarded.keys.read_text()
    assert guarded.ask("POST /predict", "web", json=ROWS).status_code == httpx.codes.OK

    guarded.keys.write_text(lines("ops"))  # The others are revoked.
    assert guarded.ask("POST /predict", "web", json=ROWS).status_code == httpx.codes.UNAUTHORIZED
    assert guarded.ask("POST /predict", "ops", json=ROWS).status_code == httpx.codes.OK

    for faulty in ("web predict NO-HASH\n", "", "# none\n"):  # The last valid keys stay in effect.
        guarded.keys.write_text(faulty)
        assert guarded.ask("POST /predict", "ops", json=ROWS).status_code == httpx.codes.OK
    guarded.keys.unlink()
    assert guarded.ask("POST /predict", "ops", json=ROWS).status_code == httpx.codes.OK
    assert guarded.ask("POST /predict", json=ROWS).status_code == httpx.codes.UNAUTHORIZED

    guarded.keys.write_text(before)
    response = guarded.ask("GET /models", "web")
    assert response.status_code == httpx.codes.OK
    assert guarded.service.request_record(response)["caller"] == "web"
    log = guarded.service.log.read_text()
    assert "previous keys stay in effect" in log
    assert not any(secret in log for secret in SECRETS.values())
    assert hashlib.sha256(SECRETS["ops"].encode()).hexdigest() not in log


def test_service_whose_keys_cannot_be_read_does_not_start(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    for content in (None, "web predict\n", "web guess " + "0" * 64, lines("web") + lines("web")):
        if content is not None:
            keys.write_text(content)
        with pytest.raises((ValueError, OSError)) as error:
            Authorizer(keys)
        assert "0000" not in str(error.value)
    with pytest.raises(AssertionError, match="not started"):
        Service(tmp_path, api_keys_file=str(keys)).start()


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_rejected_with_its_line(text: str) -> None:
    message = "Line by line"
    try:
        keys = parse_keys(text)
    except ValueError as error:
        message = str(error)
    else:
        assert len({key.name for key in keys}) == len(keys)
    assert message.startswith(("Line ", "The file has no keys"))


WORDS = st.text(st.characters(codec="ascii", exclude_characters="\r\n"), min_size=1).map(str.strip).filter(bool)


@given(st.lists(WORDS, min_size=2, max_size=2, unique=True))
def test_only_the_secret_itself_matches_its_key(tmp_path: Path, secrets: list[str]) -> None:
    mine, other = secrets
    path = tmp_path / "keys"
    path.write_text(line("it", "predict", mine))
    access = Authorizer(path)
    for header in (b"x-api-key", b"authorization"):
        before = b"Bearer " if header == b"authorization" else b""
        assert access.allows([(header, before + mine.encode())], AccessScope.PREDICT)
        assert not access.allows([(header, before + mine.encode())], AccessScope.TRAIN)
        assert not access.allows([(header, before + other.encode())], AccessScope.PREDICT)


def records_of(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return the records about key files. A service in a thread of this process may log others meanwhile."""
    return [record for record in caplog.records if record.name == "app.web.key_files"]


def test_changed_key_file_is_reloaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys"
    path.write_text(lines("web"))
    access = Authorizer(path)
    given_key = [(b"x-api-key", SECRETS["web"].encode())]
    assert access.allows(given_key, AccessScope.PREDICT)
    assert not access.allows(given_key, AccessScope.TRAIN)
    path.write_text(line("web", "train", SECRETS["web"]) + "#\n")
    os.utime(path, (time.time() + 1, time.time() + 1))
    with caplog.at_level(logging.INFO):
        assert access.allows(given_key, AccessScope.TRAIN)
    assert [record.__dict__["keys"] for record in records_of(caplog)] == [["web"]]


LOCAL = [(b"host", b"127.0.0.1:8000")]


def reject_reason(
    client: tuple[str, int] | None, headers: list[tuple[bytes, bytes]], http_version: str = "1.1"
) -> str | None:
    scope = {"type": "http", "client": client, "headers": headers, "http_version": http_version}
    try:
        Authorizer(None).check(scope, AccessScope.TRAIN)
    except Forbidden as error:
        return error.message.partition("; ")[2]
    return None


@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", [b"127.0.0.1:8000", b"localhost", b"LocalHost:80", b"[::1]:8000", b"me.localhost"])
def test_without_keys_a_client_on_this_machine_may_write(client: str, host: bytes) -> None:
    assert reject_reason((client, 5), [(b"host", host)]) is None


@pytest.mark.parametrize("client", [("10.0.0.1", 5), ("::ffff:10.0.0.1", 5), ("fe80::1", 5), ("", 5), None])
def test_without_keys_a_client_on_another_machine_may_not_write(client: tuple[str, int] | None) -> None:
    assert reject_reason(client, LOCAL) == "this request comes from another one."


@pytest.mark.parametrize("name", [b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-proto", b"x-real-ip"])
def test_without_keys_a_request_through_a_proxy_may_not_write(name: bytes) -> None:
    assert reject_reason(("127.0.0.1", 5), [*LOCAL, (name, b"127.0.0.1")]) == "this request comes through a proxy."


def test_without_keys_http_1_0_counts_as_a_proxy() -> None:
    assert reject_reason(("127.0.0.1", 5), LOCAL, http_version="1.0") == "this request comes through a proxy."


@pytest.mark.parametrize(
    "host", [b"evil.example", b"127.0.0.1.evil.example", b"localhost.evil.example", b"10.0.0.1", b""]
)
def test_without_keys_another_host_name_may_not_write(host: bytes) -> None:
    assert reject_reason(("127.0.0.1", 5), [(b"host", host)]) == "this request is for a host of another name."


@pytest.mark.parametrize(
    ("headers", "is_refused"),
    [
        ([(b"origin", b"http://127.0.0.1:8000")], False),
        ([(b"origin", b"https://127.0.0.1:8000")], False),
        ([(b"origin", b"http://127.0.0.1:9999")], True),
        ([(b"origin", b"http://localhost:8000")], True),
        ([(b"origin", b"https://evil.example")], True),
        ([(b"origin", b"null")], True),
        ([(b"sec-fetch-site", b"same-origin")], False),
        ([(b"sec-fetch-site", b"none")], False),
        ([(b"sec-fetch-site", b"same-site")], True),
        ([(b"sec-fetch-site", b"cross-site")], True),
    ],
)
def test_without_keys_a_page_of_another_site_may_not_write(
    headers: list[tuple[bytes, bytes]], is_refused: bool
) -> None:
    expected = "this request comes from a page of another site." if is_refused else None
    assert reject_reason(("127.0.0.1", 5), [*LOCAL, *headers]) == expected


@pytest.mark.parametrize(
    "headers", [{"origin": "https://evil.example"}, {"host": "evil.example"}, {"x-forwarded-for": "127.0.0.1"}]
)
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/train", NOTEBOOK),
        ("POST", "/jobs/no-job/cancel", None),
        ("PUT", "/models/crop-yield/current", {"version": 1}),
        ("DELETE", "/models/crop-yield/versions/1", None),
    ],
)
def test_web_page_cannot_change_anything_but_may_predict(
    service: Service, headers: dict[str, str], method: str, path: str, body: dict[str, Any] | None
) -> None:
    response = service.client.request(method, path, json=body, headers=headers)
    assert response.status_code == httpx.codes.FORBIDDEN
    assert "LINSERVE" not in response.text
    assert service.client.post("/predict", json=ROWS, headers=headers).status_code == httpx.codes.OK


def test_other_sites_cannot_read_responses(service: Service) -> None:
    preflight = {
        "origin": "https://other.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type",
    }
    response = service.client.options("/predict", headers=preflight)
    assert not any(name.startswith("access-control") for name in response.headers)
    response = service.client.get("/models", headers={"origin": "https://other.example"})
    assert "access-control-allow-origin" not in response.headers
    assert response.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/", "/models", "/docs", "/docs/assets/favicon.png", "/nothing", "/metrics"])
def test_every_response_has_the_security_headers(service: Service, path: str) -> None:
    headers = service.client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "unsafe-eval" not in headers["content-security-policy"]
    assert headers["cache-control"] == "private, no-cache"


def test_missing_key_is_rejected_before_the_body_arrives(guarded: Guarded) -> None:
    address = httpx.URL(guarded.service.url)
    with socket.create_connection((address.host, address.port or 0), timeout=60) as connection:
        connection.sendall(b"POST /train HTTP/1.1\r\nhost: here\r\ncontent-type: text/csv\r\ncontent-length: 9\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 401 ")


def test_log_lines_cannot_be_forged(service: Service) -> None:
    service.request_record(service.client.get("/models/%0A%7B%22level%22%3A%20%22FORGED%22%7D"))
    service.request_record(service.client.get("/models/x", headers={"x-request-id": 'a"}\\n{"level": "FORGED"}'}))
    assert not any(record["level"] == "FORGED" for record in service.records())


def test_key_file_with_the_same_size_and_time_is_reloaded(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(line("ops", "admin", "old"))
    access = Authorizer(path)
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # A kernel may count time in steps of milliseconds.
        path.write_text(line("ops", "admin", "new"))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert access.allows([(b"x-api-key", b"new")], AccessScope.ADMIN)
    assert not access.allows([(b"x-api-key", b"old")], AccessScope.ADMIN)


class Stored(NamedTuple):
    url: str
    store: Store
    proxy: FaultyProxy


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stored]:
    """A bucket with a key file, behind a proxy."""
    with faulty_proxy() as proxy:
        url = bucket_url()
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        store = open_store(url)
        store.put("keys", lines("web").encode())
        yield Stored(f"{url}/keys", store, proxy)


def test_a_changed_key_file_in_a_store_is_read_within_seconds(stored: Stored, caplog: pytest.LogCaptureFixture) -> None:
    access = Authorizer(stored.url)
    web, ops = ([(b"x-api-key", SECRETS[name].encode())] for name in ("web", "ops"))
    assert access.allows(web, AccessScope.PREDICT)
    with caplog.at_level(logging.INFO):
        stored.store.put("keys", lines("ops").encode())
        wait_for(lambda: records_of(caplog))  # after the keys are in effect
    assert access.allows(ops, AccessScope.ADMIN)
    assert not access.allows(web, AccessScope.PREDICT)
    assert [record.__dict__["keys"] for record in records_of(caplog)] == [["ops"]]


def test_the_last_valid_keys_in_a_store_stay_in_effect(stored: Stored, caplog: pytest.LogCaptureFixture) -> None:
    keys = StoredKeyFile(stored.url)
    before = keys._keys
    for fault in ("invalid", "deleted", "throttled"):
        if fault == "invalid":
            stored.store.put("keys", b"web guess")
        elif fault == "deleted":
            stored.store.delete("keys")
        else:
            stored.proxy.set("throttle")
        keys.poll()
        keys.poll()
        assert keys._keys == before
    line_fault, missing, unavailable = (record.__dict__["reason"] for record in records_of(caplog))
    assert line_fault.startswith("Line 1")
    assert missing == f"There is no file {stored.url}."
    assert unavailable.startswith(stored.store.url)
    stored.proxy.set("ok")
    stored.store.put("keys", lines("ops").encode())
    keys.poll()
    assert [key.name for key in keys._keys] == ["ops"]


def test_without_any_keys_from_the_store_requests_are_to_be_repeated(stored: Stored) -> None:
    stored.proxy.set("refuse")
    access = Authorizer(stored.url)
    headers = [(b"x-api-key", SECRETS["web"].encode())]
    assert not access.allows(headers, AccessScope.PREDICT)
    with pytest.raises(Unavailable, match="The API keys cannot be read: s3://"):
        access.check({"type": "http", "headers": headers}, AccessScope.PREDICT)
    stored.proxy.set("ok")
    wait_for(lambda: access.allows(headers, AccessScope.PREDICT))


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("{store}/missing", "There is no file s3://"),
        ("{store}/invalid", "Line 1: expected"),
        ("s3://no-such-bucket/keys", "there is no such bucket"),
        ("ftp://host/keys", "expected a URL"),
        ("s3://bucket", "expected a bucket"),
        ("s3://bucket/", "is not a key"),
    ],
)
def test_a_key_file_in_a_store_that_cannot_be_used_is_an_error_at_the_start(
    stored: Stored, url: str, reason: str
) -> None:
    stored.store.put("invalid", b"web guess")
    with pytest.raises(ValueError, match=reason):
        Authorizer(url.format(store=stored.store.url))
