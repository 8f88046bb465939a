"""What is served while a bucket does not answer, and after it answers again."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bucket_registry import put_pointer, put_versions
from buckets import SECRET_KEY, Fault, FaultyProxy, bucket_url, faulty_proxy
from models_folder import slope
from service import wait_for

from app.errors import StoreUnavailable
from app.prediction.selection import VersionSelector
from app.registry.bucket import disk_cache
from app.registry.bucket.keys import version_key
from app.registry.bucket.pointer import Pointer
from app.registry.bucket.reader import BucketReader
from app.registry.bucket.watch import PointerWatch
from app.storage.object_store import ObjectStore

FAULTS = pytest.mark.parametrize("fault", ["throttle", "hang", "refuse"])


@pytest.fixture
def proxy() -> Iterator[FaultyProxy]:
    with faulty_proxy() as proxy:
        yield proxy


@pytest.fixture
def store() -> ObjectStore:
    """A bucket that never fails."""
    return ObjectStore(bucket_url())


@pytest.fixture
def start(
    store: ObjectStore, proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], BucketReader]]:
    """A function that starts a replica, whose requests to the bucket pass the proxy."""
    watches = []

    def start() -> BucketReader:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        reader = BucketReader(ObjectStore(store.url), pinned="line", cache_dir=tmp_path / "cache")
        watches.append(PointerWatch(reader))
        watches[-1].start()
        return reader

    yield start
    for watch in watches:
        watch.stop()


@FAULTS
def test_predictions_go_on_while_the_bucket_fails_and_follow_it_afterwards(
    fault: Fault,
    store: ObjectStore,
    proxy: FaultyProxy,
    start: Callable[[], BucketReader],
    caplog: pytest.LogCaptureFixture,
) -> None:
    put_versions(store, 1, 2)
    put_versions(store, 7, model="other")
    reader = start()
    for model, expected in (("line", 2), ("other", 7)):
        assert slope(reader.current(model)) == expected
    assert slope(reader.version("line", 1)) == 1
    assert reader.storage == "store"

    proxy.set(fault)
    put_versions(store, 3)
    wait_for(lambda: reader.storage == "cache")
    for model, expected in (("line", 2), ("other", 7)):
        version = reader.get_cached(model)
        assert version is not None
        assert slope(version) == expected
    reader._cache.drop(("other", 0))
    assert slope(reader.current("other")) == 7  # from the disk
    assert reader.versions("line") == [1, 2]
    assert reader.models() == ["line", "other"]
    with reader.file("line", 1) as file:
        assert file.read() == store.get(version_key("line", 1)).content
    assert VersionSelector(reader, "line", least=1)().card.version == 2
    assert VersionSelector(reader, "line", least=2)().card.version == 2
    unanswered: list[Callable[[], object]] = [
        VersionSelector(reader, "line", least=3),
        lambda: reader.current("third"),
        lambda: reader.version("line", 3),
    ]
    for ask in unanswered:
        with pytest.raises(StoreUnavailable, match=store.url):
            ask()

    proxy.set("ok")
    wait_for(lambda: (version := reader.get_cached("line")) is not None and slope(version) == 3)
    # A request that began during the outage may fail after the first one that succeeds.
    wait_for(lambda: reader.storage == "store" and caplog.records[-1].getMessage() == "store reached again")
    told = [record.getMessage() for record in caplog.records]
    assert told == ["store not reached", "store reached again"] * (len(told) // 2)  # once for each outage
    assert proxy.url not in caplog.text


@FAULTS
def test_a_start_without_the_bucket_serves_from_the_disk_until_the_bucket_is_back(
    fault: Fault, store: ObjectStore, proxy: FaultyProxy, start: Callable[[], BucketReader]
) -> None:
    put_versions(store, 1, 2)
    start().current("line")
    put_versions(store, 3)
    proxy.set(fault)

    reader = start()
    assert slope(reader.current("line")) == 2
    assert (reader.storage, reader.had("line")) == ("cache", True)

    proxy.set("ok")
    wait_for(lambda: (version := reader.get_cached("line")) is not None and slope(version) == 3)
    wait_for(lambda: reader.storage == "store")


def test_denied_access_is_named_and_stops_nothing_that_is_served(
    store: ObjectStore, proxy: FaultyProxy, start: Callable[[], BucketReader], caplog: pytest.LogCaptureFixture
) -> None:
    put_versions(store, 1)
    reader = start()
    reader.current("line")
    proxy.answer(403, b"<Error><Code>AccessDenied</Code></Error>")
    for _ in range(3):  # a bucket without the permission to list denies missing keys too
        with pytest.raises(StoreUnavailable, match=f"{store.url} cannot be used: the credentials have no permission"):
            start().current("missing")
    wait_for(lambda: reader.storage == "cache")  # the pointer that was readable is not any more
    version = reader.get_cached("line")
    assert version is not None
    assert slope(version) == 1
    assert {record.getMessage() for record in caplog.records} == {"store not reached"}
    assert SECRET_KEY not in caplog.text
    proxy.set("ok")
    wait_for(lambda: reader.storage == "store")


def test_a_copy_on_the_disk_is_checked_and_an_older_one_is_served_in_place_of_a_damaged_one(
    store: ObjectStore, proxy: FaultyProxy, start: Callable[[], BucketReader], tmp_path: Path
) -> None:
    put_versions(store, 1)
    start().current("line")
    put_versions(store, 2)
    start().current("line")
    copies = sorted(tmp_path.glob("cache/*/line/*.safetensors"))
    assert [copy.name for copy in copies] == ["000001.safetensors", "000002.safetensors"]
    copies[1].write_bytes(copies[1].read_bytes()[:-7])
    proxy.set("refuse")
    assert slope(start().current("line")) == 1


def test_the_least_recently_used_copies_are_removed_and_current_versions_last(
    store: ObjectStore, start: Callable[[], BucketReader], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_cache, "MAX_FILES", 3)
    put_versions(store, *range(1, 8))
    reader = start()
    reader.current("line")
    for number in range(1, 7):
        reader.version("line", number)
    kept = sorted(path.name for path in tmp_path.glob("cache/*/line/*.safetensors"))
    assert kept == [f"{number:06d}.safetensors" for number in (5, 6, 7)]


def test_a_start_with_ten_thousand_versions_reads_one_pointer_and_one_version(
    store: ObjectStore, proxy: FaultyProxy, start: Callable[[], BucketReader]
) -> None:
    put_versions(store, 1)
    store.put(version_key("line", 10_000), store.get(version_key("line", 1)).content)
    put_pointer(store, Pointer(current=10_000, last=10_000, versions=((1, 10_000),), nonce="n"))
    reader = start()
    assert reader.current("line").card.version == 10_000
    names = [request.split("/models/")[1] for request in proxy.requests]
    assert [name for name in names if name != "line/pointer"] == ["line/010000.safetensors"] * 2  # its size, then it
    assert len(reader.versions("line")) == 10_000


def test_only_models_that_are_served_are_polled_and_no_versions_are_listed(
    store: ObjectStore, proxy: FaultyProxy, start: Callable[[], BucketReader]
) -> None:
    put_versions(store, 1)
    put_versions(store, 1, model="other")
    reader = start()
    reader.current("line")
    begun = len(proxy.requests)
    wait_for(lambda: len(proxy.requests) > begun + 2)
    assert {request.partition("?")[0].rpartition("/models/")[2] for request in proxy.requests[begun:]} == {
        "line/pointer"
    }
    assert not any("list-type" in request for request in proxy.requests)
