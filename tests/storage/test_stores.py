"""What holds for every store: folders, S3, Google and Azure."""

import io
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from azure_containers import azure_server, container_url
from buckets import bucket_url
from google_buckets import google_server

from app.errors import StoreUnavailable
from app.storage import BlobChanged, BlobNotFound, Store, open_store

LONG = os.urandom(1 << 16) * 320  # Longer than two parts of a multipart upload.


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with azure_server(tmp_path_factory.mktemp("azure")) as endpoint:
        yield endpoint


@pytest.fixture
def google() -> Iterator[str]:
    with google_server() as endpoint:
        yield endpoint


@pytest.fixture(params=["folder", "s3", "google", pytest.param("azure", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store((tmp_path / "a store").as_uri())
    if request.param == "s3":
        return open_store(bucket_url())
    request.getfixturevalue(request.param)
    if request.param == "google":
        return open_store("gs://bucket/linserve")
    return open_store(container_url())


def keys(store: Store, prefix: str = "", *, after: str = "") -> list[str]:
    return [blob.key for blob in store.list_blobs(prefix, after=after)]


def test_a_blob_is_read_as_it_was_written_last(store: Store) -> None:
    first = store.put("models/m/pointer", b"1")
    second = store.put("models/m/pointer", b"2")

    blob = store.get("models/m/pointer")
    assert (blob.content, blob.etag) == (b"2", second)
    assert first != second
    info = store.info("models/m/pointer")
    assert (info.key, info.size, info.etag) == ("models/m/pointer", 1, second)
    assert abs(info.modified - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_blob_is_sent_again_only_if_it_has_changed(store: Store) -> None:
    tag = store.put("a", b"1")
    assert store.get_if_changed("a", tag) is None
    new = store.put("a", b"2")
    assert store.get_if_changed("a", tag) == store.get("a")
    assert store.get_if_changed("a", new) is None


def test_what_is_not_there_is_named(store: Store) -> None:
    store.put("models/m/pointer", b"")
    for key in ("a", "models", "models/m", "models/m/pointer/a", "models/m/p"):
        for read in (store.get, store.info, store.open_read, lambda key: store.get_if_changed(key, '"tag"')):
            with pytest.raises(BlobNotFound, match=f"{store.url}/{key}"):
                read(key)
    store.delete("a")
    store.delete("models")
    assert keys(store) == ["models/m/pointer"]


def test_a_blob_is_created_once(store: Store) -> None:
    tag = store.put_if_absent("m/1", b"1")
    with pytest.raises(BlobChanged):
        store.put_if_absent("m/1", b"2")
    assert store.put_if_absent("m/1", b"1") == tag  # a repeated write of which the answer was lost
    assert store.get("m/1").content == b"1"
    store.delete("m/1")
    store.put_if_absent("m/1", b"2")
    assert store.get("m/1").content == b"2"


def test_a_blob_is_replaced_only_if_it_is_the_expected_one(store: Store) -> None:
    first = store.put("a", b"1")
    second = store.put_if_match("a", b"2", first)
    assert store.get("a").etag == second
    with pytest.raises(BlobChanged):
        store.put_if_match("a", b"3", first)
    assert store.put_if_match("a", b"2", first) == second  # a repeated write of which the answer was lost
    store.delete("a")
    with pytest.raises(BlobChanged):
        store.put_if_match("a", b"3", second)
    assert keys(store) == []


def test_one_of_many_writers_creates_a_blob(store: Store) -> None:
    start = threading.Barrier(4)

    def create(writer: int) -> int:
        start.wait()
        try:
            store.put_if_absent("a", b"%d" % writer)
        except BlobChanged:
            return 0
        return 1

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(create, range(4))) == 1


def test_no_conditional_write_overwrites_another(store: Store) -> None:
    store.put("list", b"")

    def append(writer: int) -> None:
        while True:
            blob = store.get("list")
            try:
                store.put_if_match("list", blob.content + bytes([writer]), blob.etag)
            except BlobChanged:
                continue
            return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(append, range(20)))
    assert sorted(store.get("list").content) == list(range(20))


def test_blobs_are_listed_in_the_order_of_their_keys(store: Store) -> None:
    given = ["a-b", "a/b/c", "a/b-c", "a/é", "ab/c", "b/1"]
    for key in given:
        store.put(key, key.encode())

    listed = list(store.list_blobs(""))
    assert [blob.key for blob in listed] == sorted(given)
    assert {blob.key: blob.size for blob in listed}["a/é"] == 4
    assert {blob.key: blob.etag for blob in listed}["a/b/c"] == store.get("a/b/c").etag


def test_a_prefix_matches_characters(store: Store) -> None:
    for key in ("models/ab/1", "models/ab/2", "models/abc/1", "models/b/1", "models/ab-1"):
        store.put(key, b"")

    assert keys(store, "models/ab") == ["models/ab-1", "models/ab/1", "models/ab/2", "models/abc/1"]
    assert keys(store, "models/ab/") == ["models/ab/1", "models/ab/2"]
    assert keys(store, "models/ab/1") == ["models/ab/1"]
    assert keys(store, "models/ab", after="models/ab/1") == ["models/ab/2", "models/abc/1"]
    assert keys(store, "models/", after="models/abc/1") == ["models/b/1"]
    assert keys(store, "uploads/") == keys(store, "models/ab/1/") == []


def test_names_are_those_of_blobs_and_of_folders_with_blobs(store: Store) -> None:
    for key in ("models/b/1", "models/a/pointer", "models/a/uploads/1", "models/gone/1", "x"):
        store.put(key, b"")
    store.delete("models/gone/1")

    assert store.list_names("models/") == ["a", "b"]
    assert store.list_names("models/a/") == ["pointer", "uploads"]
    assert store.list_names("") == ["models", "x"]
    assert store.list_names("y/") == []


def test_keys_that_leave_the_store_or_hide_in_it_are_refused(store: Store) -> None:
    hostile = ["", "/", "/etc/passwd", "a/", "a//b", "..", "../a", "a/../../b", "./a", "a/.", ".lock", "a\0b", "a\nb"]
    for key in [*hostile, "a\\b", "a" * 256, "a/" * 500 + "a", "\ud800"]:
        for call in (
            lambda key: store.put(key, b""),
            lambda key: store.put_if_absent(key, b""),
            lambda key: store.put_if_match(key, b"", ""),
            lambda key: store.open_write(key).__enter__(),
            store.get,
            store.delete,
            store.info,
            store.open_read,
        ):
            with pytest.raises(ValueError, match="is not a key"):
                call(key)
    assert keys(store) == []


def test_a_blob_is_read_in_ranges(store: Store) -> None:
    store.put("long", LONG)
    with store.open_read("long") as file:
        assert file.seekable()
        assert file.seek(-10, io.SEEK_END) == len(LONG) - 10
        assert file.read() == LONG[-10:]
        assert file.read(1) == b""
        assert file.seek(5) == 5
        assert file.read(3) == LONG[5:8]
        file.seek(1 << 20, io.SEEK_CUR)
        assert file.read(9 << 20) == LONG[8 + (1 << 20) :][: 9 << 20]
        file.seek(0)
        assert file.read() == LONG


def test_a_blob_that_is_replaced_is_not_read_as_the_old_one(store: Store) -> None:
    tag = store.put("long", LONG)
    with store.open_read("long", tag) as file:
        assert file.read(2) == LONG[:2]
        if store.url.startswith("file:"):  # A folder's file is still the old one, unless it is written in place.
            with Path(store.url.removeprefix("file://").replace("%20", " "), "long").open("r+b") as other:
                other.write(b"new")
        store.put("long", b"new")
        file.seek(9 << 20)
        with pytest.raises(BlobChanged):
            file.read(2)
    with pytest.raises(BlobChanged):
        store.open_read("long", tag)


def test_a_streamed_blob_becomes_visible_at_the_end(store: Store) -> None:
    with store.open_write("long") as file:
        for start in range(0, len(LONG), 1 << 20):
            file.write(LONG[start : start + (1 << 20)])
        assert keys(store) == []
    assert store.get("long").content == LONG
    with store.open_write("empty"):
        pass
    assert store.get("empty").content == b""


@pytest.mark.parametrize("length", [10, len(LONG)])
def test_a_streamed_blob_is_discarded_if_its_writer_fails(store: Store, length: int) -> None:
    def write() -> None:
        with store.open_write("long") as file:
            file.write(LONG[:length])
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        write()
    assert keys(store) == []


def test_pyarrow_reads_and_writes_blobs(store: Store) -> None:
    table = pa.table({"a": range(100_000)})
    with store.open_write("a.parquet") as file:
        pq.write_table(table, file)
    with store.open_read("a.parquet") as file:
        assert pq.ParquetFile(file).read() == table
    with store.open_read("a.parquet") as file:
        assert pq.ParquetFile(pa.PythonFile(file)).read() == table


def test_what_is_not_a_regular_file_in_a_folder_is_refused_and_not_listed(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    (tmp_path / "file").write_text("secret")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    assert keys(store) == ["file"]
    for key in ("link", "pipe"):
        for read in (store.get, store.info, store.open_read):
            with pytest.raises(StoreUnavailable, match=f"{key} cannot be read: It is "):
                read(key)
    assert store.put("link", b"new")
    assert (tmp_path / "file").read_text() == "secret"


def test_what_a_killed_writer_leaves_in_a_folder_is_not_seen(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    writing = store.open_write("models/m/1")
    writing.__enter__().write(b"1")
    store.put("models/m/2", b"2")
    left = [path.name for path in (tmp_path / "models" / "m").iterdir() if path.suffix == ".tmp"]
    assert len(left) == 1
    assert keys(store) == ["models/m/2"]
    assert store.list_names("models/m/") == ["2"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    store.put("a", b"")
    for write in (store.put, store.put_if_absent, lambda key, content: store.put_if_match(key, content, "tag")):
        with pytest.raises(StoreUnavailable, match=f"^{store.url}/a/b cannot be written: "):
            write("a/b", b"")
