import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from line import CARD
from models_folder import (
    DAMAGES,
    everything_under,
    file_of,
    flip_a_bit,
    line,
    published,
    slope,
)
from registries import EVERYWHERE, Place

from app.errors import (
    InvalidInput,
    ModelFileInvalid,
    ModelNotFound,
    Unavailable,
    VersionNotFound,
)
from app.registry.base import ModelPublisher
from app.registry.folder import reader as module
from app.registry.folder.publisher import FolderPublisher
from app.registry.version_file import Version, encode, read

HOSTILE = ["..", ".", "", "A", "a/b", "a/../line", "../line", "/line", "line/", ".line", "line.", "-line", "line\n",
           "a b", "a\0b", "a\\b", "ä", "\ud800", "\udcff", "a" * 65, "a" * 5000]  # fmt: skip


@EVERYWHERE
def test_a_promotion_is_seen_by_every_reader_at_its_next_look(registry: ModelPublisher, place: Place) -> None:
    published(registry, 1, 2, promoted=1)
    reader = place.open()
    assert slope(reader.current("line")) == 1
    registry.promote("line", 2)
    assert slope(reader.current("line")) == 2
    assert reader.current_number("line") == 2
    registry.promote("line", 1)
    assert slope(reader.current("line")) == 1


@EVERYWHERE
def test_an_unchanged_version_is_not_loaded_again(registry: ModelPublisher) -> None:
    published(registry, 1, 2, promoted=1)
    assert registry.current("line") is registry.current("line")
    assert registry.version("line", 2) is registry.version("line", 2)


@EVERYWHERE
def test_more_versions_than_are_kept_in_memory_can_be_read(registry: ModelPublisher) -> None:
    published(registry, *range(1, 71))
    for _ in range(2):
        assert [slope(registry.version("line", number)) for number in range(1, 71)] == list(range(1, 71))


@EVERYWHERE
def test_models_with_a_version_are_listed(registry: ModelPublisher, folder: Path) -> None:
    assert registry.models() == []
    published(registry, 1, model="beta", promoted=1)
    published(registry, 1, model="alpha", promoted=1)
    published(registry, 1, model="unpromoted")
    (folder / "Not a model").mkdir()
    (folder / "Not a model" / "current").symlink_to("000001.safetensors")
    (folder / "rebuild.py").touch()
    assert registry.models() == ["alpha", "beta", "unpromoted"]
    registry.delete("unpromoted", 1)
    assert registry.models() == ["alpha", "beta"]


@EVERYWHERE
def test_readers_never_see_anything_but_whole_versions_while_promotions_go_on(
    registry: ModelPublisher, place: Place
) -> None:
    published(registry, 1, 2, promoted=1)

    def promote_to_and_fro() -> None:
        for index in range(100):
            registry.promote("line", 1 + index % 2)

    writer = threading.Thread(target=promote_to_and_fro)
    reader = place.open()
    writer.start()
    seen = set()
    while writer.is_alive():
        version = reader.current("line")
        assert slope(version) == version.card.version
        assert place.open().current_number("line") in (1, 2)
        seen.add(version.card.version)
    writer.join()
    assert seen <= {1, 2}


@DAMAGES
@EVERYWHERE
def test_the_version_served_before_stays_if_the_promoted_file_is_damaged(
    registry: ModelPublisher,
    folder: Path,
    damage: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
    place: Place,
) -> None:
    published(registry, 1, 2, 3, promoted=1)
    reader = place.open()
    assert slope(reader.current("line")) == 1
    registry.promote("line", 3)
    damage(file_of(folder, 3))
    with caplog.at_level(logging.ERROR):
        assert slope(reader.current("line")) == 1
        assert slope(reader.current("line")) == 1
    # It is logged once, not with every request.
    assert [record.getMessage() for record in caplog.records] == ["version refused"]


@DAMAGES
@EVERYWHERE
def test_a_new_reader_serves_the_newest_intact_version_below_a_damaged_one(
    registry: ModelPublisher, folder: Path, damage: Callable[[Path], None], place: Place
) -> None:
    published(registry, 1, 2, 3, 4, promoted=3)
    damage(file_of(folder, 3))
    assert slope(place.open().current("line")) == 2
    damage(file_of(folder, 2))
    assert slope(place.open().current("line")) == 1


@DAMAGES
@EVERYWHERE
def test_no_version_is_served_if_none_is_intact(
    registry: ModelPublisher, folder: Path, damage: Callable[[Path], None], place: Place
) -> None:
    published(registry, 1, 2, promoted=2)
    damage(file_of(folder, 1))
    damage(file_of(folder, 2))
    with pytest.raises(ModelFileInvalid, match='No version of "line" can be served') as refused:
        place.open().current("line")
    assert (str(folder) in str(refused.value)) == (place.kind == "store")  # which is named by its URL


def test_a_file_in_the_place_of_the_pointer_changes_nothing_until_the_next_promotion(
    registry: FolderPublisher, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    published(registry, 1, 2, promoted=1)
    assert slope(registry.current("line")) == 1
    pointer = folder / "line" / "current"
    pointer.unlink()
    pointer.write_bytes(file_of(folder, 1).read_bytes())  # as a copy has it that followed links
    with caplog.at_level(logging.ERROR):
        assert slope(registry.current("line")) == 1
        with pytest.raises(ModelFileInvalid):
            FolderPublisher(folder).current("line")
    assert {record.__dict__["reason"] for record in caplog.records} == {
        "`current` is not a link to a version. Promote one."
    }
    registry.promote("line", 2)
    assert slope(registry.current("line")) == slope(FolderPublisher(folder).current("line")) == 2


@EVERYWHERE
def test_after_a_damaged_version_a_good_one_can_be_promoted(
    registry: ModelPublisher, folder: Path, place: Place
) -> None:
    published(registry, 1, 2, 3, promoted=1)
    reader = place.open()
    reader.current("line")
    registry.promote("line", 2)
    flip_a_bit(file_of(folder, 2))
    assert slope(reader.current("line")) == 1
    registry.promote("line", 3)
    assert slope(reader.current("line")) == 3


@pytest.mark.parametrize("target", ["../../secret", "/etc/passwd", "000001.deleted", "1.safetensors", "nowhere"])
def test_a_current_link_to_anything_but_a_version_is_not_followed(
    registry: FolderPublisher, folder: Path, target: str
) -> None:
    published(registry, 1)
    (folder.parent / "secret").write_bytes(encode(replace(CARD, version=1), line(666)))
    (folder / "line" / "current").symlink_to(target)
    with pytest.raises(ModelFileInvalid):
        registry.current("line")


@EVERYWHERE
def test_foreign_files_in_a_models_folder_are_no_versions(registry: ModelPublisher, folder: Path) -> None:
    published(registry, 1, promoted=1)
    for name in ("yields.csv", "7.safetensors", "000009.safetensors.bak", ".000008.safetensors", "x000007.safetensors"):
        (folder / "line" / name).write_bytes(b"something")
    assert registry.versions("line") == [1]
    assert registry.publish(CARD, line(2)).card.version == 2


@EVERYWHERE
def test_a_version_that_another_process_deleted_is_not_served_from_memory(
    registry: ModelPublisher, place: Place
) -> None:
    published(registry, 1, 2, promoted=1)
    reader = place.open()
    assert slope(reader.version("line", 2)) == 2
    registry.delete("line", 2)
    with pytest.raises(VersionNotFound):
        reader.version("line", 2)


@EVERYWHERE
def test_no_version_is_served_if_none_is_current_or_intact(registry: ModelPublisher, folder: Path) -> None:
    published(registry, 1)
    assert registry.served_number("line") is None
    registry.promote("line", 1)
    flip_a_bit(file_of(folder, 1))
    assert registry.served_number("line") is None
    assert registry.served_number("../line") is None


@EVERYWHERE
def test_a_version_that_is_deleted_while_it_is_read_is_read_to_its_end(registry: ModelPublisher, folder: Path) -> None:
    published(registry, 1, 2, promoted=1)
    content = file_of(folder, 2).read_bytes()
    with registry.file("line", 2) as file:
        registry.delete("line", 2)
        assert file.read() == content
    with pytest.raises(VersionNotFound):
        registry.file("line", 2)


def test_a_version_that_is_a_link_to_another_file_is_refused(registry: FolderPublisher, folder: Path) -> None:
    published(registry, 1, promoted=1)
    secret = folder.parent / "secret"
    secret.write_bytes(encode(CARD, line(666)))
    file_of(folder, 2).symlink_to(secret)
    for call in (registry.version, registry.file, registry.promote):
        with pytest.raises(ModelFileInvalid):
            call("line", 2)
    registry.delete("line", 2)
    assert secret.exists()


def test_a_version_stays_cached_until_a_large_file_replaces_it(
    registry: FolderPublisher, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(registry, 1, 2, promoted=1)
    reader = FolderPublisher(folder)
    monkeypatch.setattr(module, "SMALL_BYTES", 100)
    assert reader.get_cached("line") is None
    assert reader.get_cached("line", 2) is None
    assert (reader.current("line"), reader.version("line", 2)) == (
        reader.get_cached("line"),
        reader.get_cached("line", 2),
    )
    registry.promote("line", 2)
    assert reader.get_cached("line") is None
    registry.promote("line", 1)
    registry.delete("line", 2)
    assert reader.get_cached("line") is not None
    with pytest.raises(VersionNotFound):
        reader.get_cached("line", 2)


def test_a_promoted_small_file_is_read_at_once_unless_another_is_being_read(
    registry: FolderPublisher, folder: Path
) -> None:
    published(registry, 1, 2, promoted=1)
    reader = FolderPublisher(folder)
    reader.current("line")
    registry.promote("line", 2)
    with reader._reading_current:
        assert reader.get_cached("line") is None
    assert slope(reader.get_cached("line") or reader.version("line", 1)) == 2


def test_threads_that_want_a_new_current_version_read_it_once(
    registry: FolderPublisher, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(registry, 1, promoted=1)
    reads = []

    def noted(path: Path) -> Version:
        reads.append(path)
        return read(path)

    monkeypatch.setattr(module, "read", noted)
    reader = FolderPublisher(folder)
    all_want_it = threading.Barrier(8)

    def want_it(_: int) -> Version:
        all_want_it.wait()
        return reader.current("line")

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(want_it, range(8)))) == 1
    assert len(reads) == 1


@pytest.mark.parametrize("number", [0, 2, -1, 10**6, 10**300])
@EVERYWHERE
def test_a_version_there_is_not_is_not_found(registry: ModelPublisher, number: int) -> None:
    published(registry, 1, promoted=1)
    for call in (registry.version, registry.promote, registry.delete):
        with pytest.raises(VersionNotFound):
            call("line", number)
    assert registry.current_number("line") == 1


@EVERYWHERE
def test_a_model_there_is_not_is_not_found(registry: ModelPublisher, folder: Path) -> None:
    for call in (registry.current, registry.versions):
        with pytest.raises(ModelNotFound, match='no model "line"'):
            call("line")
    for numbered in (registry.version, registry.promote, registry.delete):
        with pytest.raises(ModelNotFound, match='no model "line"'):
            numbered("line", 1)
    assert registry.find("line", "job") is None
    assert registry.current_number("line") is None
    assert list(folder.iterdir()) == []


def test_while_the_models_folder_is_gone_the_version_served_before_is_served_on_and_nothing_is_written(
    registry: FolderPublisher, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    published(registry, 1, 2, promoted=1)
    reader = FolderPublisher(folder)
    assert slope(reader.current("line")) == 1
    away = folder.rename(folder.with_name("away"))
    with caplog.at_level(logging.ERROR):
        assert slope(reader.current("line")) == 1
        for call in (
            lambda: FolderPublisher(folder).current("line"),
            lambda: reader.version("line", 1),
            lambda: reader.versions("line"),
            lambda: reader.file("line", 1),
            lambda: reader.find("line", "upload"),
            lambda: reader.promote("line", 2),
            lambda: reader.delete("line", 2),
            lambda: reader.publish(CARD, line(3)),
            reader.models,
        ):
            with pytest.raises(Unavailable) as refused:
                call()
            assert str(folder) not in str(refused.value)
    assert {record.getMessage() for record in caplog.records} == {"models folder not read"}
    assert not folder.exists()

    away.rename(folder)
    reader.promote("line", 2)
    assert slope(reader.current("line")) == 2
    assert reader.versions("line") == [1, 2]


def test_each_served_model_is_logged_once_if_an_empty_folder_replaces_the_models(
    registry: FolderPublisher, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    published(registry, 1, promoted=1)
    published(registry, 1, model="other", promoted=1)
    registry.current("line")
    folder.rename(folder.with_name("away"))
    folder.mkdir()  # as where a volume is mounted no more
    for _ in range(3):
        for model in ("line", "other"):
            with pytest.raises(ModelNotFound):
                registry.current(model)
    told = [(record.levelno, record.getMessage(), record.__dict__["model"]) for record in caplog.records]
    assert told == [(logging.WARNING, "model vanished", "line")]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_an_unreadable_model_is_not_listed_and_logged_once(
    registry: FolderPublisher, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    published(registry, 1, promoted=1)
    published(registry, 1, model="other", promoted=1)
    (folder / "line").chmod(0)
    try:
        assert registry.models() == registry.models() == ["other"]
    finally:
        (folder / "line").chmod(0o700)
    told = [(record.levelno, record.getMessage(), record.__dict__["model"]) for record in caplog.records]
    assert told == [(logging.WARNING, "model not read", "line")]


def test_a_model_whose_link_is_gone_is_not_found_although_it_was_served(
    registry: FolderPublisher, folder: Path
) -> None:
    published(registry, 1, promoted=1)
    registry.current("line")
    (folder / "line" / "current").unlink()
    with pytest.raises(ModelNotFound):
        registry.current("line")


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_hostile_name_is_rejected_and_touches_nothing(registry: FolderPublisher, folder: Path, name: str) -> None:
    published(registry, 1, 2, promoted=1)
    # Files that a name would find if it led out of its folder.
    (folder / "current").symlink_to("line/000001.safetensors")
    (folder.parent / "current").symlink_to("models/line/000001.safetensors")
    (folder / "000001.safetensors").symlink_to("line/000001.safetensors")
    (folder.parent / "000001.safetensors").symlink_to("models/line/000001.safetensors")
    before = everything_under(folder.parent)
    for call in (registry.current, registry.versions):
        with pytest.raises(ModelNotFound) as refused:
            call(name)
        assert refused.value.message.startswith('There is no model "...".')
    for numbered in (registry.version, registry.path, registry.promote, registry.delete):
        with pytest.raises(ModelNotFound):
            numbered(name, 1)
    assert registry.find(name, "job") is None
    assert registry.current_number(name) is None
    with pytest.raises(InvalidInput):
        registry.publish(replace(CARD, model=name), line(1))
    assert everything_under(folder.parent) == before
    assert name not in registry.models()


@pytest.mark.parametrize("name", ["a", "0", "crop-yield", "a.b_c-d", "a" * 64, "a..b"])
@EVERYWHERE
def test_plain_names_are_names_of_models(registry: ModelPublisher, name: str) -> None:
    published(registry, 1, model=name, promoted=1)
    assert registry.models() == [name]
    assert slope(registry.current(name)) == 1
