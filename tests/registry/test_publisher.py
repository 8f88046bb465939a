import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from line import CARD
from models_folder import DAMAGES, everything_under, file_of, flip_a_bit, line, published, refused_by_the_disk, slope
from registries import ALSO_IN_S3, EVERYWHERE, Place

from app.errors import (
    Conflict,
    ModelFileInvalid,
    ModelNotFound,
    NoCurrentVersion,
    Unavailable,
    VersionNotFound,
)
from app.registry.base import ModelPublisher
from app.registry.folder.publisher import FolderPublisher

PUBLISHER = """
import sys
from dataclasses import replace
from pathlib import Path
from app.registry.folder.publisher import FolderPublisher

registry = FolderPublisher(Path(sys.argv[1]))
first = registry.version("line", 1)
print("ready", flush=True)
sys.stdin.readline()
print(*[registry.publish(replace(first.card, upload=None), first.model).card.version for _ in range(15)])
"""


@EVERYWHERE
def test_versions_are_numbered_from_one_and_read_back(registry: ModelPublisher, folder: Path, place: Place) -> None:
    assert [registry.publish(CARD, line(number)).card.version for number in (1, 2, 3)] == [1, 2, 3]
    other = place.open()
    assert other.versions("line") == [1, 2, 3]
    assert [slope(other.version("line", number)) for number in (1, 2, 3)] == [1, 2, 3]
    assert other.version("line", 2).card == replace(CARD, version=2, promoted=False)


@EVERYWHERE
def test_the_number_on_the_card_does_not_matter(registry: ModelPublisher) -> None:
    assert registry.publish(replace(CARD, version=99), line(1)).card.version == 1


@EVERYWHERE
def test_publishing_promotes_nothing(registry: ModelPublisher) -> None:
    published(registry, 1, 2)
    assert registry.models() == ["line"]
    assert registry.current_number("line") is None
    with pytest.raises(NoCurrentVersion, match=r'"line" has no current version; promote one\. .*: 1, 2\.'):
        registry.current("line")


def test_publishing_and_promoting_leave_nothing_else_behind(registry: FolderPublisher, folder: Path) -> None:
    published(registry, 1, 2, promoted=1)
    registry.promote("line", 2)
    assert sorted(path.name for path in (folder / "line").iterdir()) == [
        "000001.safetensors",
        "000002.safetensors",
        "current",
        "uploads",
    ]


def test_current_is_a_relative_link_so_that_the_folder_can_move(registry: FolderPublisher, folder: Path) -> None:
    published(registry, 1, promoted=1)
    assert (folder / "line" / "current").readlink() == Path("000001.safetensors")
    moved = folder.rename(folder.with_name("moved"))
    assert slope(FolderPublisher(moved).current("line")) == 1


def test_a_promotion_that_the_disk_refuses_leaves_the_old_version_current(
    registry: FolderPublisher, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(registry, 1, 2, promoted=1)
    before = everything_under(folder)
    for call in ("rename", "replace"):
        monkeypatch.setattr(Path, call, refused_by_the_disk)
    with pytest.raises(Unavailable, match="No space left on device"):
        registry.promote("line", 2)
    assert everything_under(folder) == before
    assert slope(FolderPublisher(folder).current("line")) == 1


def test_a_version_that_the_disk_refuses_leaves_nothing_behind(
    registry: FolderPublisher, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(registry, 1)
    before = everything_under(folder)
    with monkeypatch.context() as patched:
        patched.setattr(os, "link", refused_by_the_disk)
        for model in ("line", "new"):
            with pytest.raises(Unavailable, match="No space left on device"):
                registry.publish(replace(CARD, model=model), line(2))
    (folder / "line" / "uploads" / ".last").unlink()  # a number may be reserved, and not used
    (folder / "line" / "uploads" / ".last").symlink_to("../000001.safetensors")
    assert everything_under(folder) == before
    assert registry.publish(CARD, line(2)).card.version == 2


@EVERYWHERE
def test_publishers_in_threads_never_share_a_number(folder: Path, place: Place) -> None:
    def publish(publisher: int) -> list[tuple[int, float]]:
        registry = place.open()
        found = []
        for index in range(8):
            version = registry.publish(CARD, line(100 * publisher + index))
            found.append((version.card.version, slope(version)))
        return found

    with ThreadPoolExecutor(6) as pool:
        parts = list(pool.map(publish, range(6)))
    numbered = dict(pair for part in parts for pair in part)
    registry = place.open()
    assert sorted(numbered) == registry.versions("line")
    assert len(numbered) == 48
    if place.kind == "folder":  # publishers that compete for a pointer may leave gaps
        assert sorted(numbered) == list(range(1, 49))
        assert not list((folder / "line").glob(".*"))
    for number, expected in numbered.items():
        version = registry.version("line", number)
        assert (version.card.version, slope(version)) == (number, expected)


def test_publishers_in_processes_never_share_a_number(registry: FolderPublisher, folder: Path) -> None:
    published(registry, 1)
    command = [sys.executable, "-c", PUBLISHER, str(folder)]
    publishers = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )
        for _ in range(3)
    ]
    try:
        for publisher in publishers:
            assert publisher.stdout is not None
            assert publisher.stdout.readline() == "ready\n"
        for publisher in publishers:
            assert publisher.stdin is not None
            publisher.stdin.write("go\n")
            publisher.stdin.flush()
        numbers = [int(word) for publisher in publishers for word in publisher.communicate(timeout=120)[0].split()]
    finally:
        for publisher in publishers:
            publisher.kill()
            publisher.communicate()
    assert sorted(numbers) == list(range(2, 47))
    assert registry.versions("line") == list(range(1, 47))
    assert [registry.version("line", number).card.version for number in range(1, 47)] == list(range(1, 47))


@ALSO_IN_S3
def test_an_upload_is_published_once(registry: ModelPublisher, place: Place) -> None:
    published(registry, 1)
    first = registry.publish(replace(CARD, upload="a"), line(2))
    published(registry, 3)
    again = place.open().publish(replace(CARD, upload="a"), line(4))
    assert (again.card.version, slope(again)) == (first.card.version, slope(first)) == (2, 2)
    assert registry.publish(replace(CARD, upload="b"), line(5)).card.version == 4
    assert registry.versions("line") == [1, 2, 3, 4]


@EVERYWHERE
def test_an_uploads_version_is_found_in_its_own_model_alone(registry: ModelPublisher) -> None:
    registry.publish(replace(CARD, upload="a"), line(2))
    found = registry.find("line", "a")
    assert found is not None
    assert (found.card.upload, slope(found)) == ("a", 2)
    assert registry.find("line", "b") is None
    assert registry.find("other", "a") is None
    assert registry.publish(replace(CARD, model="other", upload="a"), line(3)).card.version == 1


@DAMAGES
@EVERYWHERE
def test_an_upload_whose_version_is_damaged_is_not_published_again(
    registry: ModelPublisher, place: Place, damage: Callable[[Path], None]
) -> None:
    registry.publish(replace(CARD, upload="a"), line(1))
    published(registry, 2)
    damage(file_of(place.folder, 1))
    if place.kind == "folder" and not file_of(place.folder, 1).exists():
        assert registry.find("line", "a") is None  # as if its publisher had been killed before the publication
        return
    with pytest.raises(ModelFileInvalid):
        registry.find("line", "a")
    with pytest.raises(ModelFileInvalid):
        registry.publish(replace(CARD, upload="a"), line(3))
    assert registry.versions("line") == [1, 2]


@DAMAGES
@EVERYWHERE
def test_a_damaged_version_is_neither_read_nor_promoted(
    registry: ModelPublisher, folder: Path, damage: Callable[[Path], None]
) -> None:
    published(registry, 1, 2, promoted=1)
    damage(file_of(folder, 2))
    for call in (registry.version, registry.promote):
        with pytest.raises((ModelFileInvalid, VersionNotFound)):
            call("line", 2)
    assert slope(registry.current("line")) == 1
    assert registry.current_number("line") == 1


@EVERYWHERE
def test_a_foreign_card_in_the_folder_stops_no_job_from_publishing(registry: ModelPublisher, folder: Path) -> None:
    published(registry, 1)
    header = b'{"__metadata__":{"card":"[1]"}}'
    header += b" " * (-len(header) % 8)
    file_of(folder, 2).write_bytes(len(header).to_bytes(8, "little") + header)
    assert registry.publish(replace(CARD, upload="a"), line(3)).card.version == 3


@ALSO_IN_S3
def test_deleted_versions_are_gone_and_their_numbers_are_never_used_again(
    registry: ModelPublisher, place: Place
) -> None:
    published(registry, 1, 2, 3, promoted=1)
    registry.delete("line", 3)
    assert registry.versions("line") == [1, 2]
    with pytest.raises(VersionNotFound, match="no version 3"):
        registry.version("line", 3)
    with pytest.raises(VersionNotFound):
        registry.delete("line", 3)
    with pytest.raises(VersionNotFound):
        registry.promote("line", 3)
    assert place.open().publish(CARD, line(4)).card.version == 4
    registry.delete("line", 2)
    assert registry.publish(CARD, line(5)).card.version == 5
    assert registry.versions("line") == [1, 4, 5]


@EVERYWHERE
def test_the_number_of_an_only_version_that_was_deleted_is_not_used_again(
    registry: ModelPublisher, place: Place
) -> None:
    published(registry, 1)
    registry.delete("line", 1)
    with pytest.raises(ModelNotFound):
        registry.versions("line")
    assert place.open().publish(CARD, line(2)).card.version == 2


@EVERYWHERE
def test_the_current_version_is_not_deleted(registry: ModelPublisher) -> None:
    published(registry, 1, 2, promoted=2)
    with pytest.raises(Conflict, match="Promote another one first"):
        registry.delete("line", 2)
    assert slope(registry.version("line", 2)) == 2
    registry.promote("line", 1)
    registry.delete("line", 2)
    assert registry.versions("line") == [1]


@EVERYWHERE
def test_the_version_that_is_served_in_place_of_the_current_one_is_not_deleted(
    registry: ModelPublisher, folder: Path, place: Place
) -> None:
    published(registry, 1, 2, 3, promoted=3)
    flip_a_bit(file_of(folder, 3))
    reader = place.open()
    assert (reader.current_number("line"), reader.served_number("line")) == (3, 2)
    for number in (2, 3):
        with pytest.raises(Conflict, match="Promote another one first"):
            reader.delete("line", number)
    reader.delete("line", 1)
    assert slope(place.open().current("line")) == 2


@EVERYWHERE
def test_a_number_that_current_points_to_is_taken_although_its_file_is_missing(
    registry: ModelPublisher, folder: Path, place: Place
) -> None:
    published(registry, 1, 2, promoted=2)
    file_of(folder, 2).unlink()  # as a backup has it that was made during a promotion
    assert registry.publish(CARD, line(3)).card.version == 3
    assert slope(place.open().current("line")) == 1


def test_a_folder_that_cannot_be_written_is_unavailable_and_its_path_is_not_repeated(
    registry: FolderPublisher, folder: Path
) -> None:
    (folder / "line").write_text("a file where the model's folder would be")
    with pytest.raises(Unavailable, match="cannot be written") as refused:
        registry.publish(CARD, line(1))
    assert str(folder) not in refused.value.message
    assert (folder / "line").read_text().startswith("a file")
    with pytest.raises(ModelNotFound):
        registry.versions("line")


def test_a_model_whose_first_version_cannot_be_written_leaves_no_folder(
    registry: FolderPublisher, folder: Path
) -> None:
    with pytest.raises(TypeError):
        registry.publish(replace(CARD, metrics={"mse": object()}), line(1))
    assert not (folder / "line").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_closed_to_writing_is_unavailable_for_every_change(registry: FolderPublisher, folder: Path) -> None:
    published(registry, 1, 2, promoted=1)
    (folder / "line").chmod(0o500)
    try:
        with pytest.raises(Unavailable):
            registry.publish(CARD, line(3))
        for call in (registry.promote, registry.delete):
            with pytest.raises(Unavailable):
                call("line", 2)
        assert slope(registry.current("line")) == 1
    finally:
        (folder / "line").chmod(0o700)
