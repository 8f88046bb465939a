"""Reading of a registry in a store: what is served, from where, and how often the store is asked."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bucket_registry import pointer_of, put_pointer, put_versions
from models_folder import slope
from service import MAX_SECONDS, wait_for

from app.errors import ModelFileInvalid, ModelNotFound, NoCurrentVersion, Unavailable, VersionNotFound
from app.prediction.selection import VersionSelector
from app.registry.bucket import pointer_reader
from app.registry.bucket import reader as module
from app.registry.bucket.disk_cache import DiskCache
from app.registry.bucket.keys import pointer_key, version_key
from app.registry.bucket.pointer import Pointer
from app.registry.bucket.reader import BucketReader
from app.registry.bucket.watch import JITTER_SECONDS, POLL_SECONDS, PointerWatch
from app.storage.folder_store import FolderStore
from app.storage.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def watch() -> Iterator[Callable[[BucketReader], BucketReader]]:
    """A function that starts a watch over a reader, which ends with the test."""
    watches = []

    def start(reader: BucketReader) -> BucketReader:
        watches.append(PointerWatch(reader))
        watches[-1].start()
        return reader

    yield start
    for one in watches:
        one.stop()


def served(reader: BucketReader, model: str = "line") -> float | None:
    """Return the slope that an event loop would predict with."""
    version = reader.get_cached(model)
    return None if version is None else slope(version)


def test_a_promotion_elsewhere_is_served_within_a_second_and_no_request_waits_for_it(
    store: Store, watch: Callable[[BucketReader], BucketReader]
) -> None:
    put_versions(store, 1)
    reader = watch(BucketReader(store))
    assert slope(reader.current("line")) == 1

    put_versions(store, 2)

    seen: set[float | None] = set()

    def is_seen() -> bool:
        seen.add(served(reader))
        return 2 in seen

    wait_for(is_seen)
    assert seen <= {1, 2}  # the poll may precede the first look
    put_pointer(store, pointer_of(store).with_current(1))
    wait_for(lambda: served(reader) == 1)
    assert POLL_SECONDS + JITTER_SECONDS < 1  # longest time until the next poll


def test_without_a_watch_every_look_at_the_current_version_is_a_look_at_the_pointer(store: Store) -> None:
    put_versions(store, 1)
    reader = BucketReader(store)
    first = reader.current("line")
    assert reader.current("line") is first
    put_versions(store, 2)
    assert slope(reader.current("line")) == 2
    assert reader.current_number("line") == 2
    assert reader.versions("line") == [1, 2]


def test_a_client_that_names_the_version_promoted_elsewhere_gets_it_at_once(
    store: Store, watch: Callable[[BucketReader], BucketReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.registry.bucket.watch.POLL_SECONDS", 60.0)
    put_versions(store, 1)
    reader = watch(BucketReader(store))
    reader.current("line")
    put_versions(store, 2)
    assert served(reader) == 1
    assert asyncio.run(VersionSelector(reader, "line", least=1).resolve_async()).card.version == 1
    assert asyncio.run(VersionSelector(reader, "line", least=2).resolve_async()).card.version == 2
    assert served(reader) == 2
    with pytest.raises(Unavailable, match="accepts no version below 3"):
        VersionSelector(reader, "line", least=3)()
    put_pointer(store, pointer_of(store).with_current(1))
    assert VersionSelector(reader, "line", least=1)().card.version == 1  # after a look, because 2 was served


def test_a_deleted_model_and_a_deleted_version_are_gone_at_the_next_poll(
    store: Store, watch: Callable[[BucketReader], BucketReader], caplog: pytest.LogCaptureFixture
) -> None:
    put_versions(store, 1, 2)
    reader = watch(BucketReader(store))
    reader.current("line")
    reader.version("line", 1)
    assert reader.get_cached("line", 1) is not None
    put_pointer(store, pointer_of(store).without_version(1))
    wait_for(lambda: reader.get_cached("line", 1) is None)
    with pytest.raises(VersionNotFound):
        reader.version("line", 1)
    put_pointer(store, pointer_of(store).without_versions())
    wait_for(lambda: served(reader) is None)
    with pytest.raises(ModelNotFound):
        reader.current("line")
    assert reader.models() == []
    wait_for(lambda: bool(caplog.records))  # written after the model is removed
    assert [record.getMessage() for record in caplog.records] == ["model vanished"]


def test_the_poll_survives_a_thread_that_cannot_be_started(
    store: Store,
    watch: Callable[[BucketReader], BucketReader],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    put_versions(store, 1)
    real, refused = threading.Thread.start, threading.Event()

    def start(thread: threading.Thread) -> None:
        if thread.name == "read-pointers" and not refused.is_set():
            refused.set()
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr("app.registry.bucket.watch.MAX_BACKOFF_SECONDS", 0.1)
    reader = watch(BucketReader(store))
    reader.current("line")
    assert refused.wait(MAX_SECONDS)
    put_versions(store, 2)
    wait_for(lambda: served(reader) == 2)
    assert [record.getMessage() for record in caplog.records] == ["pointer not polled"]


def test_a_model_whose_pointer_is_lost_is_logged_once_with_the_remedy(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    put_versions(store, 1)
    store.delete(pointer_key("line"))
    reader = BucketReader(store)
    assert (reader.models(), reader.models()) == ([], [])
    (record,) = caplog.records
    assert record.getMessage() == "pointer refused"
    assert f"{store.url}/{pointer_key('line')} is missing" in vars(record)["reason"]


def test_an_older_pointer_does_not_replace_a_newer_copy(tmp_path: Path) -> None:
    first = Pointer().with_version(1, promote=True)
    second = first.with_version(2, promote=True)
    cache, other = (DiskCache(tmp_path, "memory://") for _ in range(2))
    cache.put_pointer("line", lambda: second)
    cache.put_version("line", 2, b"2")
    other.put_pointer("line", lambda: first)  # read before, and written after
    assert cache.pointer("line") == second.encode()
    assert cache.numbers("line") == [2]
    other.put_pointer("line", lambda: first, newer=True)  # the store was restored
    assert (cache.pointer("line"), cache.numbers("line")) == (first.encode(), [])


@pytest.mark.parametrize("damage", ["cut short", "gone", "not in the pointer"])
def test_a_damaged_current_version_leaves_the_one_served_before_until_it_is_repaired(
    store: Store,
    watch: Callable[[BucketReader], BucketReader],
    damage: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RECHECK_SECONDS", 0.1)
    put_versions(store, 1, 2, promoted=1)
    intact = store.get(version_key("line", 2)).content
    reader = watch(BucketReader(store))
    reader.current("line")
    if damage == "cut short":
        store.put(version_key("line", 2), intact[:-7])
    elif damage == "gone":
        store.delete(version_key("line", 2))
    pointer = pointer_of(store).with_current(2)
    put_pointer(store, pointer.without_version(2) if damage == "not in the pointer" else pointer)

    wait_for(lambda: any("refused" in record.getMessage() for record in caplog.records))
    assert served(reader) == 1
    assert slope(BucketReader(store).current("line")) == 1  # the newest intact one, after a start
    refusal = next(record for record in caplog.records if "refused" in record.getMessage())
    if damage != "not in the pointer":
        assert f"{store.url}/models/line/000002.safetensors" in str(refusal.__dict__["reason"])

    store.put(version_key("line", 2), intact)
    put_pointer(store, pointer)
    wait_for(lambda: served(reader) == 2)


def test_a_model_without_any_intact_version_is_unavailable_with_the_place_and_the_reason(store: Store) -> None:
    put_versions(store, 1)
    store.put(version_key("line", 1), b"PK\x03\x04 something else")
    reader = BucketReader(store)
    with pytest.raises(ModelFileInvalid, match=f"{store.url}/models/line/000001.safetensors is truncated, altered"):
        reader.current("line")
    store.put(pointer_key("line"), b"<html>")
    with pytest.raises(ModelFileInvalid, match=f"{store.url}/models/line/pointer is not a pointer"):
        reader.current("line")
    assert reader.models() == []


@pytest.mark.parametrize("content", [b"<html>", None])
def test_a_pointer_that_somebody_destroys_changes_nothing_for_a_process_that_knew_it(
    store: Store,
    watch: Callable[[BucketReader], BucketReader],
    caplog: pytest.LogCaptureFixture,
    content: bytes | None,
) -> None:
    put_versions(store, 1)
    reader = watch(BucketReader(store))
    reader.current("line")
    if content is None:
        store.delete(pointer_key("line"))
    else:
        store.put(pointer_key("line"), content)
    wait_for(lambda: bool(caplog.records))
    assert served(reader) == 1
    assert reader.versions("line") == [1]
    put_versions(store, 5) if content is None else put_pointer(store, Pointer().with_version(1, promote=True))
    wait_for(lambda: served(reader) == (5 if content is None else 1))
    assert [record.getMessage() for record in caplog.records] == ["pointer refused"]


def test_versions_are_read_and_named_after_their_keys(store: Store) -> None:
    put_versions(store, 1, 2, promoted=1)
    store.put(version_key("copy", 7), store.get(version_key("line", 2)).content)
    put_pointer(store, Pointer().with_version(7), "copy")
    reader = BucketReader(store)
    assert reader.models() == ["copy", "line"]
    card = reader.version("copy", 7).card
    assert (card.model, card.version) == ("copy", 7)
    assert reader.version("copy", 7) is reader.version("copy", 7)
    with pytest.raises(NoCurrentVersion, match="Its versions: 7"):
        reader.current("copy")
    assert reader.served_number("copy") is None
    with pytest.raises(VersionNotFound):
        reader.version("copy", 6)
    with reader.file("line", 2) as file:
        assert file.read() == store.get(version_key("line", 2)).content
    assert reader.folds("line", 2) == {}
    for name in ("..", "a/b", "A", "line\n", ""):
        with pytest.raises(ModelNotFound):
            reader.current(name)
        assert reader.current_number(name) is None


def test_models_that_nobody_asks_for_are_not_polled(
    store: Store, watch: Callable[[BucketReader], BucketReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    put_versions(store, 1)
    put_versions(store, 1, model="idle")
    reader = watch(BucketReader(store))
    reader.current("line")
    reader.current("idle")
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(pointer_reader, "IDLE_SECONDS", 0.0)
    assert reader.served_models() == []
    put_versions(store, 2)
    assert served(reader) is None  # a thread has to look at the pointer
    assert slope(reader.current("line")) == 2
