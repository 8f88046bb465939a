"""URLs of training files, and the prefixes under which they are allowed."""

import contextlib
import os
import pickle
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import buckets
import pytest

from app.errors import Forbidden, InvalidInput, SourceChanged, StoreUnavailable, WorkerBusy
from app.storage import BlobInfo, open_store
from app.storage.folder_store import FolderStore
from app.training import sources
from app.training.source_url import NOT_ALLOWED, NOTHING_ALLOWED, AllowedSources, parse_source
from app.training.sources import SourceFile, resolve, resolve_quickly

CONTENT = "x,y\n1,2\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files under an allowed folder, next to it, and links between them."""
    for name in (
        "data/a.csv",
        "data/b.csv",
        "data/sub/c.csv",
        "data/sub/_hidden.csv",
        "data/.hidden.csv",
        "data/with space+.csv",
        "data/star*.csv",
        "data/%2e%2e.csv",
        "database/secret.csv",
        "secret.csv",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(CONTENT)
    (tmp_path / "data/out.csv").symlink_to(tmp_path / "secret.csv")
    (tmp_path / "data/nowhere.csv").symlink_to(tmp_path / "there-is-none.csv")
    (tmp_path / "data/up").symlink_to(tmp_path)
    (tmp_path / "data/sub/inside.csv").symlink_to(tmp_path / "data/a.csv")
    (tmp_path / "data/loop").symlink_to(tmp_path / "data/loop")
    (tmp_path / "linked").symlink_to(tmp_path / "data")
    os.mkfifo(tmp_path / "data/pipe.csv")
    return tmp_path


def names(url: str, allowed: AllowedSources) -> list[str]:
    return [file.name for file in resolve(url, allowed).files]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("data/a.csv", ["a.csv"]),
        ("data//./a.csv", ["a.csv"]),
        ("data/sub/../a.csv", ["a.csv"]),
        ("database/../data/a.csv", ["a.csv"]),
        ("data/%61.csv", ["a.csv"]),
        ("data/with%20space+.csv", ["with space+.csv"]),
        ("data/with space+.csv", ["with space+.csv"]),
        ("data/star%2A.csv", ["star*.csv"]),
        ("data/%252e%252e.csv", ["%2e%2e.csv"]),
        ("data/?.csv", ["a.csv", "b.csv"]),
        ("data/[ab].csv", []),
        ("data/*.csv", ["%2e%2e.csv", "a.csv", "b.csv", "star*.csv", "with space+.csv"]),
        ("data/*/*.csv", ["a.csv", "c.csv"]),
        ("data/_*.csv", []),
        ("data/sub/_*.csv", ["_hidden.csv"]),
        ("data/sub/inside.csv", ["a.csv"]),
        ("linked/a.csv", []),
        ("data/pipe.csv", []),
        ("data/sub", []),
        ("data/none.csv", []),
        ("data/a.csv/b.csv", []),
        ("data/loop/a.csv", []),
    ],
)
def test_a_url_names_the_files_under_an_allowed_folder(folder: Path, path: str, found: list[str]) -> None:
    allowed = AllowedSources.parse(f"s3://elsewhere, file://{folder}/data/, file://{folder}/linked")
    if path.startswith("linked"):
        assert names(f"file://{folder}/{path}", allowed) == ["a.csv"]
    elif found:
        assert names(f"file://{folder}/{path}", allowed) == found
    else:
        with pytest.raises(InvalidInput, match="No file"):
            resolve(f"file://{folder}/{path}", allowed)


@pytest.mark.parametrize(
    "path",
    [
        "secret.csv",
        "there-is-none.csv",
        "*.csv",
        "*/a.csv",
        "data*/a.csv",
        "database/secret.csv",
        "database/none.csv",
        "data/../secret.csv",
        "data/../there-is-none.csv",
        "data/%2e%2e/secret.csv",
        "data/sub/../../secret.csv",
        "data/../../../../../../etc/passwd",
        "data/out.csv",
        "data/nowhere.csv",
        "data/up/secret.csv",
        "data/up/there-is-none.csv",
        "data/up/*.csv",
        "DATA/a.csv",
    ],
)
def test_files_elsewhere_are_refused_whether_they_exist_or_not(folder: Path, path: str) -> None:
    with pytest.raises(Forbidden) as refused:
        resolve(f"file://{folder}/{path}", AllowedSources.parse(f"file://{folder}/data"))
    assert refused.value.message == NOT_ALLOWED
    assert refused.value.details == ()


def test_a_pattern_does_not_follow_links_out_of_the_folder(folder: Path) -> None:
    allowed = AllowedSources.parse(f"file://{folder}/data")
    assert "out.csv" not in names(f"file://{folder}/data/*.csv", allowed)
    assert "secret.csv" not in names(f"file://{folder}/data/*/*.csv", allowed)
    with pytest.raises(InvalidInput, match="No file matches"):
        resolve(f"file://{folder}/data/*/*/secret.csv", allowed)


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/data/x.csv",
        "s3://bucket/database/x.csv",
        "s3://bucket/dat/x.csv",
        "s3://bucket/x.csv",
        "s3://bucket/data/../x.csv",
        "s3://bucket/data/%2E%2E/x.csv",
        "s3://bucket/*/x.csv",
        "s3://Bucket/datas/x.csv",
        "s3://other/data/x.csv",
        "gs://bucket/data/x.csv",
        "file:///data/x.csv",
    ],
)
def test_a_prefix_covers_whole_segments_of_one_bucket(url: str) -> None:
    allowed = AllowedSources.parse("s3://bucket/data")
    if url == "s3://bucket/data/x.csv":
        allowed.check(parse_source(url))
    else:
        with pytest.raises(Forbidden, match="may not read this source"):
            allowed.check(parse_source(url))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "data.csv",
        "/etc/passwd",
        "http://169.254.169.254/x.csv",
        "file://host/etc/passwd",
        "file:/etc/passwd",
        "FILE:///x.csv",
        "s3:///x.csv",
        "s3://user:password@bucket/x.csv",  # pragma: allowlist secret
        "s3://bucket:80/x.csv",
        "s3://buc%2Fket/x.csv",
        "s3://bucket",
        "s3://bucket/",
        "s3://bucket/folder/",
        "s3://bucket/folder/..",
        "s3://bucket/%",
        "s3://bucket/%zz.csv",
        "s3://bucket/%ff.csv",
        "s3://bucket/a%2Fb.csv",
        "s3://bucket/a%5Cb.csv",
        "s3://bucket/a\\b.csv",
        "s3://bucket/a\0b.csv",
        "s3://bucket/a%00b.csv",
        "s3://bucket/a%0Ab.csv",
        "s3://bucket/**/b.csv",
        "s3://bucket/" + "*a" * 17,
        "s3://bucket/" + "a" * 1000,
    ],
)
def test_other_urls_are_invalid_wherever_files_are_allowed(url: str) -> None:
    with pytest.raises(InvalidInput) as error:
        resolve(url, AllowedSources.parse("file:///,s3://bucket"))
    assert error.value.details[0].pointer == "/source"


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*", "a.csv", True),
        ("a*", "a", True),
        ("*a", "a", True),
        ("a*a", "a", False),
        ("*ab*ab", "abab", True),
        ("*ab*ab", "ab", False),
        ("*a?c*e", "xabcde", True),
        ("*a*b*", "xxb-a", False),
        ("?*?", "ab", True),
        ("?*?", "a", False),
        ("a.c*", "abc", False),
        ("%2A*", "*x", True),
        ("%2A*", "xx", False),
        ("*a" * 15 + "*b", "a" * 250, False),
    ],
)
def test_a_pattern_matches_whole_names_in_little_time(pattern: str, name: str, *, matches: bool) -> None:
    started = time.process_time()
    assert bool(parse_source(f"s3://bucket/{pattern}").patterns[0].fullmatch(name)) is matches
    assert time.process_time() - started < 0.1


def test_nothing_is_allowed_without_the_setting() -> None:
    for url in ("file:///etc/passwd", "nonsense"):
        with pytest.raises(Forbidden) as refused:
            resolve(url, AllowedSources.parse(None))
        assert refused.value.message == NOTHING_ALLOWED
        assert "LINSERVE_SOURCES" in refused.value.message


@pytest.mark.parametrize(
    "prefixes",
    ["data", "s3://", "file://host/x", "http://x/y", "s3://bucket,,", "s3://b?cket", "file:///a*", "s3://b%"],
)
def test_prefixes_that_are_no_urls_are_named(prefixes: str) -> None:
    with pytest.raises(ValueError, match="expected URL prefixes"):
        AllowedSources.parse(prefixes)


def test_files_of_several_or_unknown_formats_are_refused(folder: Path) -> None:
    allowed = AllowedSources.parse(f"file://{folder}/data")
    (folder / "data/d.parquet").write_bytes(b"")
    (folder / "data/e.ndjson").write_bytes(b"")
    for pattern, reason in (("?.*", "e.ndjson: the format does not follow"), ("[", "No file"), ("?.[cp]*", "No file")):
        with pytest.raises(InvalidInput, match=reason):
            resolve(f"file://{folder}/data/{pattern}", allowed)
    (folder / "data/e.ndjson").unlink()
    with pytest.raises(InvalidInput, match=r"several formats: a\.csv|several formats: b\.csv"):
        resolve(f"file://{folder}/data/?.*", allowed)
    assert resolve(f"file://{folder}/data/?.*", allowed, "csv").format == "csv"


def test_the_number_of_files_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = AllowedSources.parse(f"file://{folder}/data")
    monkeypatch.setattr(sources, "MAX_FILES", 4)
    with pytest.raises(InvalidInput, match="More than 4 files match"):
        resolve(f"file://{folder}/data/*.csv", allowed)
    monkeypatch.setattr(sources, "MAX_LISTED", 3)
    with pytest.raises(InvalidInput, match="More than 3 names had to be compared"):
        resolve(f"file://{folder}/data/z*.csv", allowed)


def local(folder: Path, name: str) -> SourceFile:
    return resolve(f"file://{folder}/data/{name}", AllowedSources.parse(f"file://{folder}/data")).files[0]


def test_a_file_travels_to_another_process_and_is_opened_there(folder: Path) -> None:
    file = pickle.loads(pickle.dumps(local(folder, "with%20space+.csv")))  # noqa: S301 - our own
    with file.open() as opened:
        assert opened.read() == CONTENT.encode()
    source = file.source()
    assert isinstance(source, Path)
    assert source.read_text() == CONTENT


@pytest.mark.parametrize("change", ["content", "removed", "link", "folder link", "fifo"])
def test_a_file_that_was_replaced_is_not_opened(folder: Path, change: str) -> None:
    file, path = local(folder, "sub/c.csv"), folder / "data/sub/c.csv"
    if change == "content":
        path.write_text("x,y\n1,3\n4,5\n")
    elif change == "folder link":
        path.parent.rename(folder / "moved")
        path.parent.symlink_to(folder / "moved")
    else:
        path.unlink()
        if change == "link":
            path.symlink_to(folder / "secret.csv")
        elif change == "fifo":
            os.mkfifo(path)
    for read in (file.open, file.source, file.check):
        with pytest.raises(SourceChanged, match=r"c\.csv: the file was changed or removed"):
            read()


def test_a_source_stays_the_file_that_was_checked(folder: Path) -> None:
    source = local(folder, "sub/c.csv").source()
    (folder / "data/sub").rename(folder / "moved")
    (folder / "data/sub").symlink_to(folder)
    (folder / "c.csv").write_text("secret")
    assert isinstance(source, Path)
    assert source.read_text() == CONTENT


def test_a_folder_that_becomes_a_link_during_the_check_is_noticed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, real = local(folder, "sub/c.csv"), os.open
    (folder / "elsewhere").mkdir()
    (folder / "data/sub/c.csv").rename(folder / "elsewhere/c.csv")  # the same file, so its tag is the same

    def swapped(path: Path, flags: int) -> int:
        (folder / "data/sub").rename(folder / "moved")
        (folder / "data/sub").symlink_to(folder / "elsewhere")
        return real(path, flags)

    monkeypatch.setattr(os, "open", swapped)
    with pytest.raises(SourceChanged):
        file.open()


def test_a_name_that_is_not_utf8_hides_no_other_file(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder / "data/sub") + b"/\xff.csv")).write_text(CONTENT)
    assert names(f"file://{folder}/data/sub/*.csv", AllowedSources.parse(f"file://{folder}/data")) == ["a.csv", "c.csv"]


@pytest.mark.parametrize(
    ("url", "is_allowed"),
    [
        ("s3://bucket/data/x%20.csv", True),
        ("s3://bucket/data/%2A.csv", True),
        ("s3://bucket/database/x.csv", False),
        ("s3://other/data/x.csv", False),
        ("s3://bucket/data/../x.csv", False),
        ("s3://bucket/data/%2E%2E/x.csv", False),
        ("s3://bucket/data/..%2Fx.csv", False),
        ("file:///etc/passwd", False),
        ("http://bucket/data/x.csv", False),
        ("", False),
    ],
)
def test_recorded_files_are_checked_with_the_prefixes(url: str, *, is_allowed: bool) -> None:
    allowed = AllowedSources.parse("s3://bucket/data")
    with contextlib.nullcontext() if is_allowed else pytest.raises(Forbidden):
        allowed.check_recorded(url)


def test_a_recorded_link_is_not_followed(folder: Path) -> None:
    allowed = AllowedSources.parse(f"file://{folder}/data")
    allowed.check_recorded(f"file://{folder}/data/with%20space%2B.csv")
    for name in ("out.csv", "up/secret.csv", "sub/inside.csv"):
        with pytest.raises(Forbidden):
            allowed.check_recorded(f"file://{folder}/data/{name}")


def test_a_request_looks_for_files_within_a_time_and_with_few_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, allowed = f"file://{folder}/data/*.csv", AllowedSources.parse(f"file://{folder}/data")
    assert resolve_quickly(url, allowed) == resolve(url, allowed)
    with sources._searches, sources._searches, pytest.raises(WorkerBusy, match="Send this one again later"):
        resolve_quickly(url, allowed)
    monkeypatch.setattr(sources, "REQUEST_SECONDS", -1.0)
    with pytest.raises(InvalidInput, match="Listing the files took longer"):
        resolve_quickly(url, allowed)


def test_names_that_are_no_keys_are_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket may have objects of others with any names."""

    class Foreign(FolderStore):
        def list_blobs(self, prefix: str, *, after: str = "") -> Iterator[BlobInfo]:
            for name in ("back\\slash", "line\nfeed", ".hidden", "long" * 100):
                yield replace(found[0], key=f"p/x/{name}.csv")
            yield from super().list_blobs(prefix, after=after)

    store = Foreign(tmp_path)
    store.put("p/x/good.csv", CONTENT.encode())
    found = list(open_store(f"file://{tmp_path}").list_blobs("p/"))
    monkeypatch.setattr(sources, "_store", lambda _: store)
    allowed = AllowedSources.parse("s3://bucket/p")
    assert names("s3://bucket/p/x/*.csv", allowed) == ["good.csv"]
    for path in ("a" * 300 + ".csv", "/".join(["a" * 200] * 4) + "/bb" * 40 + ".csv", ".a/b.csv", "a" * 300 + "/*.csv"):
        with pytest.raises(InvalidInput, match=r"No file (has|matches) this URL"):
            resolve(f"s3://bucket/p/{path}", allowed)
    with pytest.raises(InvalidInput, match="No file matches this URL"):
        resolve("s3://bucket/p/*/.hidden.csv", allowed)


def test_files_of_a_bucket_are_found_by_their_names_and_read_on_condition_of_their_tags() -> None:
    bucket = buckets.bucket_url().rsplit("/", 1)[0]
    store = open_store(bucket)
    for key in ("data/b.csv", "data/a 1.csv", "data/_SUCCESS", "data/sub/c.csv", "database/secret.csv"):
        store.put(key, CONTENT.encode())
    allowed = AllowedSources.parse(f"{bucket}/data/")

    files = resolve(f"{bucket}/data/*.csv", allowed).files

    assert [file.url for file in files] == [f"{bucket}/data/a%201.csv", f"{bucket}/data/b.csv"]
    assert [file.size for file in files] == [len(CONTENT)] * 2
    assert names(f"{bucket}/data/*/?.csv", allowed) == ["c.csv"]
    assert names(f"{bucket}/data/a%201.csv", allowed) == ["a 1.csv"]
    with files[0].open() as opened:
        opened.seek(4)
        assert opened.read() == CONTENT.encode()[4:]
    for url, error in (
        (f"{bucket}/database/secret.csv", Forbidden),
        (f"{bucket}/database/none.csv", Forbidden),
        (f"{bucket}/data/none.csv", InvalidInput),
        (f"{bucket}/data/none*.csv", InvalidInput),
        (f"{bucket}/data/.hidden.csv", InvalidInput),
        (f"{bucket}/data/.hidden/*.csv", InvalidInput),
    ):
        with pytest.raises(error):
            resolve(url, allowed)
    store.put("data/b.csv", b"x,y\n5,6\n")
    store.delete("data/a 1.csv")
    for file in files:
        for read in (file.check, lambda file=file: file.open().read()):
            with pytest.raises(SourceChanged):
                read()


def test_a_bucket_that_is_away_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = buckets.bucket_url().rsplit("/", 1)[0]
    sources._store.cache_clear()
    with buckets.faulty_proxy() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        proxy.set("refuse")
        with pytest.raises(StoreUnavailable):
            resolve(f"{bucket}/x.csv", AllowedSources.parse(bucket))
    sources._store.cache_clear()
