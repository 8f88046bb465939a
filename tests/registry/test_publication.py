"""Publishing and promoting as one act, between whose steps a process is killed."""

import os
import shutil
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from line import CARD, STATISTICS
from registries import ALSO_IN_S3, EVERYWHERE, Place

from app import failpoints
from app.errors import Conflict
from app.registry.base import ModelPublisher, ParentChanged
from app.registry.folder.publisher import FolderPublisher
from app.registry.version_file import encode
from app.regression.linear_model import LinearModel

MODEL = LinearModel(("x",), ("y",), np.ones((1, 1)), np.zeros(1), STATISTICS, np.ones(1))
BEFORE_IT_IS_PUBLISHED = ("temp_written", "fsynced", "prepared")
WHEN_IT_IS_PUBLISHED = ("linked", "promoted")


@pytest.fixture
def registry(place: Place) -> ModelPublisher:
    """A registry with version 1 of the model "line", which is current."""
    found = place.open()
    found.publish(replace(CARD, upload="first"), MODEL, promote=True)
    return found


def published(registry: ModelPublisher, upload: str, **options: Any) -> int:
    return registry.publish(replace(CARD, upload=upload), MODEL, **options).card.version


def killed_at(step: str, folder: Path, act: Callable[[], object]) -> None:
    """Do something in a process of its own, which is killed at this step."""
    armed = folder.parent / "failpoints"
    armed.mkdir(exist_ok=True)
    (armed / step).write_text("SIGKILL")
    if (child := os.fork()) == 0:
        try:
            failpoints._FOLDER = str(armed)
            act()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


@EVERYWHERE
def test_a_version_is_current_as_soon_as_it_is_published(registry: ModelPublisher) -> None:
    version = registry.publish(replace(CARD, upload="a"), MODEL, promote=True, expected=1)
    assert registry.current_number("line") == version.card.version == 2
    assert version.card.promoted is True
    assert version.card.parent == 1
    assert registry.publish(replace(CARD, upload="b"), MODEL).card.promoted is False
    assert registry.current_number("line") == 2


@ALSO_IN_S3
def test_a_version_is_not_published_when_another_became_current_meanwhile(registry: ModelPublisher) -> None:
    published(registry, "a", promote=True, expected=1)
    for promote in (True, False):
        with pytest.raises(ParentChanged):
            published(registry, "b", promote=promote, expected=1)
    with pytest.raises(ParentChanged):
        published(registry, "b", promote=True, expected=None)
    assert registry.versions("line") == [1, 2]
    assert registry.find("line", "b") is None
    assert published(registry, "b", promote=True, expected=2) == 3


@EVERYWHERE
def test_a_first_version_expects_that_none_is_current(folder: Path, place: Place) -> None:
    registry = place.open()
    with pytest.raises(ParentChanged):
        published(registry, "a", promote=True, expected=1)
    assert not (folder / "line").exists()
    assert published(registry, "a", promote=True, expected=None) == 1


@EVERYWHERE
def test_the_parent_of_a_version_that_replaces_all_rows_is_current_at_its_publication(
    registry: ModelPublisher,
) -> None:
    published(registry, "a")
    assert published(registry, "b", promote=True) == 3
    assert registry.version("line", 3).card.parent == 1
    registry.promote("line", 2)
    assert registry.version("line", published(registry, "c")).card.parent == 2


@EVERYWHERE
def test_a_parent_that_is_given_is_kept_when_nothing_is_compared(registry: ModelPublisher) -> None:
    published(registry, "a", promote=True)
    card = replace(CARD, mode="update", parent=1)
    assert registry.publish(card, MODEL).card.parent == 1


@pytest.mark.parametrize("step", [*BEFORE_IT_IS_PUBLISHED, *WHEN_IT_IS_PUBLISHED])
@pytest.mark.parametrize("then", ["update", "rerun", "promotion", "deletion"])
def test_a_publisher_that_is_killed_has_published_and_promoted_or_done_neither(
    registry: FolderPublisher, folder: Path, step: str, then: str
) -> None:
    published(registry, "old")
    killed_at(step, folder, lambda: published(FolderPublisher(folder), "a", promote=True, expected=1))
    others = FolderPublisher(folder)
    done = step in WHEN_IT_IS_PUBLISHED

    if then == "update" and done:
        with pytest.raises(ParentChanged):
            published(others, "b", promote=True, expected=1)
        assert others.current_number("line") == 3
        assert published(others, "b", promote=True, expected=3) == 4
    elif then == "update":
        assert published(others, "b", promote=True, expected=1) == 3
    elif then == "promotion":
        others.promote("line", 2)  # a rollback comes after what was published before, and holds
        assert others.current_number("line") == 2
    elif then == "deletion" and done:
        with pytest.raises(Conflict, match="current"):
            others.delete("line", 3)
    elif then == "deletion":
        others.delete("line", 2)
        assert others.current_number("line") == 1

    found = others.find("line", "a")
    assert (found is not None) == done
    if found is not None and then in ("rerun", "deletion"):
        assert others.current_number("line") == found.card.version == 3
    again = published(others, "a", promote=True)
    assert again == (3 if done else max(others.versions("line")))
    uploads = [others.version("line", number).card.upload for number in others.versions("line")]
    assert len(set(uploads)) == len(uploads)
    assert not (folder / "line" / ".next").is_symlink()


def test_the_marker_of_a_killed_publisher_does_not_claim_the_version_that_has_its_number(
    registry: FolderPublisher, folder: Path
) -> None:
    killed_at("prepared", folder, lambda: published(FolderPublisher(folder), "a", promote=True))
    assert published(registry, "b") == 2
    assert registry.find("line", "a") is None
    assert registry.current_number("line") == 1
    assert published(registry, "a") == 3


def test_a_copy_of_the_folder_that_was_made_during_a_publication_keeps_its_current_version(
    registry: FolderPublisher, folder: Path
) -> None:
    published(registry, "a", promote=True)
    published(registry, "b", promote=True)
    (folder / "line" / ".next").symlink_to("000002.safetensors")  # copied before version 3 was published
    assert published(registry, "c", promote=True, expected=3) == 4
    assert registry.current_number("line") == 4


def test_a_copy_of_the_folder_that_followed_the_links_goes_on(registry: FolderPublisher, folder: Path) -> None:
    published(registry, "a", promote=True)
    copied = shutil.copytree(folder, folder.with_name("copy"))
    other = FolderPublisher(copied)
    other.promote("line", 2)
    assert published(other, "b", promote=True, expected=2) == 3
    found = other.find("line", "b")
    assert found is not None


def test_versions_from_before_there_were_markers_are_found(folder: Path) -> None:
    (folder / "line").mkdir()
    for number in range(1, 6):
        card = replace(CARD, version=number, upload=f"upload-{number}")
        (folder / "line" / f"{number:06d}.safetensors").write_bytes(encode(card, MODEL))
    (folder / "line" / "000007.deleted").touch()
    registry = FolderPublisher(folder)
    found = registry.find("line", "upload-2")
    assert found is not None
    assert (found.card.version, found.card.promoted) == (2, None)
    assert published(registry, "upload-3") == 3
    assert published(registry, "new") == 8
    for number in range(1, 6):
        found = registry.find("line", f"upload-{number}")
        assert found is not None
        assert found.card.version == number


def test_a_training_reads_and_lists_as_much_with_many_versions_as_with_few(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cost(versions: int) -> tuple[int, int, int]:
        registry = FolderPublisher(folder)
        model = f"of-{versions}"
        for number in range(versions):
            card = replace(CARD, model=model, upload=f"upload-{number}")
            registry.publish(card, MODEL, promote=number == 0)
        counts = {"opened": 0, "listed": 0, "looked": 0}
        with monkeypatch.context() as patched:
            for module, name, kind in (
                (os, "open", "opened"),
                (os, "listdir", "listed"),
                (os, "scandir", "listed"),
                (os, "stat", "looked"),
                (os, "lstat", "looked"),
            ):
                patched.setattr(module, name, _counted(getattr(module, name), counts, kind))
            assert registry.find(model, "new") is None
            registry.current(model)
            registry.publish(replace(CARD, model=model, upload="new"), MODEL, promote=True, expected=1)
            assert registry.find(model, "new") is not None
        return counts["opened"], counts["listed"], counts["looked"]

    few = cost(3)
    assert cost(60) == few
    assert few[1] == 0


def _counted(function: Any, counts: dict[str, int], kind: str) -> Any:
    own = threading.get_ident()

    def counting(*args: Any, **options: Any) -> Any:
        # Not calls of threads that other tests left. Deleted models of the same name have one entry each.
        counts[kind] += threading.get_ident() == own and "/.deleted/" not in str(args[0])
        return function(*args, **options)

    return counting


@EVERYWHERE
@pytest.mark.parametrize("deletes", ["version", "model"])
def test_an_upload_whose_version_was_deleted_is_not_published_again(
    registry: ModelPublisher, place: Place, deletes: str
) -> None:
    number = published(registry, "a")
    if deletes == "version":
        registry.delete("line", number)
    else:
        registry.delete_model("line")
    other = place.open()
    for again in (lambda: other.find("line", "a"), lambda: published(other, "a")):
        with pytest.raises(Conflict, match=f"The version of this job was deleted. It was version {number} of"):
            again()
    assert published(other, "b") == number + 1
    if deletes == "version":
        with pytest.raises(Conflict):
            published(other, "a")


def test_the_marker_of_a_killed_publisher_does_not_claim_a_deleted_version(
    registry: FolderPublisher, folder: Path
) -> None:
    killed_at("prepared", folder, lambda: published(FolderPublisher(folder), "a"))
    assert published(registry, "b") == 2
    registry.delete("line", 2)
    assert registry.find("line", "a") is None
    assert published(registry, "a") == 3


def test_temporary_markers_of_killed_publishers_are_swept_after_an_hour(
    registry: FolderPublisher, folder: Path
) -> None:
    left = folder / "line" / "uploads" / ".0.tmp"
    left.symlink_to("000001.safetensors")
    folder_left = folder / "line" / ".1.tmp"
    folder_left.mkdir()
    (folder_left / "a").symlink_to("000001.safetensors")
    registry.sweep()
    assert left.is_symlink()
    for path in (left, folder_left):
        os.utime(path, (0, 0), follow_symlinks=False)
    registry.sweep()
    assert not left.is_symlink()
    assert not folder_left.exists()
