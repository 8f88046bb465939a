"""Buckets that are slow, gone, wrong or closed: each error names the URL and the reason, and no credential."""

import logging
import os
import traceback
from collections.abc import Callable, Iterator

import httpx
import pytest
from buckets import SECRET_KEY, Fault, FaultyProxy, bucket_url, endpoint, faulty_proxy

from app.errors import StoreMisconfigured, StoreUnavailable
from app.storage import BlobChanged, Store, open_store

CALLS: list[Callable[[Store], object]] = [
    lambda store: store.get("a"),
    lambda store: store.info("a"),
    lambda store: store.put("a", b"1"),
    lambda store: store.put_if_absent("b", b"1"),
    lambda store: store.put_if_match("a", b"1", '"tag"'),
    lambda store: list(store.list_blobs("")),
    lambda store: store.list_names("models/"),
    lambda store: store.delete("a"),
    lambda store: store.open_read("a"),
    lambda store: written(store, 10),
    lambda store: written(store, 9 << 20),
]
SENSITIVE = ("AKIA", SECRET_KEY, "Signature", "X-Amz", "Authorization", "?")


def written(store: Store, length: int) -> None:
    with store.open_write("streamed") as file:
        file.write(bytes(length))


def error_of(call: Callable[[Store], object], store: Store) -> StoreUnavailable:
    """Return the error that the call raises. Nothing that a log could show of it has a part of a request."""
    with pytest.raises(StoreUnavailable) as raised:
        call(store)
    error = raised.value
    assert error.message.startswith(store.url)
    assert error.message == str(error)
    shown = "".join(traceback.format_exception(error, chain=True))
    shown = "\n".join(line for line in shown.splitlines() if not line.startswith("    "))  # without our own code
    assert not [word for word in SENSITIVE if word in shown]
    return error


@pytest.fixture
def proxy() -> Iterator[FaultyProxy]:
    with faulty_proxy() as proxy:
        yield proxy


@pytest.fixture
def store(proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> Store:
    url = bucket_url()
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    store = open_store(url)
    store.put("a", b"0")
    return store


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (404, "NoSuchBucket", "there is no such bucket"),
        (403, "AccessDenied", "the credentials have no permission"),
        (403, "InvalidAccessKeyId", "the credentials are not valid"),
        (403, "SignatureDoesNotMatch", "the credentials are not valid"),
        (400, "ExpiredToken", "the credentials have expired"),
        (403, "RequestTimeTooSkewed", "the clock of this machine is wrong"),
        (400, "AuthorizationHeaderMalformed", "the bucket is in another region"),
    ],
)
def test_what_the_operator_has_to_act_on_is_named(
    proxy: FaultyProxy, store: Store, status: int, code: str, reason: str
) -> None:
    proxy.answer(status, f"<Error><Code>{code}</Code><Message>AKIA {SECRET_KEY}</Message></Error>".encode())
    for call in CALLS:
        error = error_of(call, store)
        assert isinstance(error, StoreMisconfigured)
        assert reason in error.message
        assert len(error.message.split(". ")) <= 3


@pytest.mark.parametrize("code", ["NoSuchBucket", "ContainerNotFound"])
@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_every_kind_of_bucket_explains_its_errors(
    proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, scheme: str, code: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setenv("GOOGLE_BASE_URL", proxy.url)
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", SECRET_KEY)
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", proxy.url)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", f"sv=2021-08-06&sig={SECRET_KEY}")
    proxy.answer(404, f"<Error><Code>{code}</Code></Error>".encode())
    store = open_store(f"{scheme}://missing/prefix")
    for call in CALLS:
        error = error_of(call, store)
        assert isinstance(error, StoreMisconfigured)
        assert "there is no such bucket or container" in error.message


def test_a_bucket_that_does_not_exist_is_not_an_empty_one(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket_url()
    store = open_store("s3://no-such-bucket/linserve")
    for call in CALLS:
        assert "there is no such bucket" in error_of(call, store).message


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("throttle", "it limits the rate of requests or is overloaded"),
        ("refuse", "no connection can be made"),
        pytest.param("hang", "it did not answer in time", marks=pytest.mark.slow),
    ],
)
def test_an_outage_ends_in_an_error_within_seconds(proxy: FaultyProxy, store: Store, fault: Fault, reason: str) -> None:
    proxy.set(fault)
    # Each of these repeats its request for a second, or waits for seconds.
    for call in CALLS[1:4] if fault == "hang" else CALLS[::4]:
        error = error_of(call, store)
        assert not isinstance(error, StoreMisconfigured)
        assert reason in error.message
        assert error.message.endswith("Try again later.")
    proxy.set("ok")
    assert store.get("a").content == b"0"


def test_a_short_outage_is_not_noticed(proxy: FaultyProxy, store: Store) -> None:
    proxy.set("throttle", times=1)
    assert store.get("a").content == b"0"
    proxy.set("lose the answer", times=1)
    written(store, 9 << 20)
    assert store.info("streamed").size == 9 << 20


def test_a_conditional_write_whose_answer_is_lost_has_written(proxy: FaultyProxy, store: Store) -> None:
    for times in (1, 5):  # obstore repeats a request four times
        proxy.set("lose the answer", times=times)
        tag = store.put_if_absent(f"b{times}", b"1")
        proxy.set("lose the answer", times=times)
        tag = store.put_if_match(f"b{times}", b"2", tag)
        assert store.get(f"b{times}").etag == tag
        proxy.set("throttle", times=1)
        with pytest.raises(BlobChanged):
            store.put_if_absent(f"b{times}", b"3")


def test_only_the_ranges_that_are_read_are_requested(proxy: FaultyProxy, store: Store) -> None:
    store.put("long", bytes(20 << 20))
    proxy.requests.clear()
    with store.open_read("long") as file:
        file.seek(-8, os.SEEK_END)
        file.read(8)
        file.seek(5 << 20)
        file.read(1000)
        file.read(1000)
    assert [request.split()[0] for request in proxy.requests] == ["HEAD", "GET", "GET"]
    assert proxy.sent < 3 << 20


def test_objects_of_others_are_listed_and_faulty_names_are_reported(store: Store) -> None:
    bucket = store.url.removeprefix("s3://").removesuffix("/linserve")
    httpx.put(f"{endpoint()}/{bucket}/linserve/models/READ ME.txt", content=b"x", timeout=60).raise_for_status()
    assert [blob.key for blob in store.list_blobs("models/")] == ["models/READ ME.txt"]
    httpx.put(f"{endpoint()}/{bucket}/linserve/models//x", content=b"x", timeout=60).raise_for_status()
    error = error_of(lambda store: list(store.list_blobs("models/")), store)
    assert "an object whose name is not a valid key" in error.message


def test_credentials_in_a_url_are_not_shown() -> None:
    store = open_store("s3://user:hidden@bucket/prefix?X-Amz-Signature=hidden")
    assert store.url == "s3://bucket/prefix"


def test_a_missing_credential_is_named(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    url = bucket_url()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    with caplog.at_level(logging.DEBUG):
        error = error_of(lambda store: store.put("a", b""), open_store(url))
    assert "no credentials were found" in error.message
    assert caplog.text == ""
