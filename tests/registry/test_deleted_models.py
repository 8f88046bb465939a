"""A model is deleted as a whole, at once for every process, and its numbers are never used again."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from line import CARD, STATISTICS
from registries import ALSO_IN_S3, EVERYWHERE, Place

from app.errors import ModelFileInvalid, ModelNotFound, PreconditionFailed, VersionNotFound
from app.registry.base import ModelPublisher
from app.registry.folder.publisher import FolderPublisher
from app.regression.linear_model import LinearModel

DELETER = """
import sys
from pathlib import Path
from app.registry.folder.publisher import FolderPublisher

FolderPublisher(Path(sys.argv[1])).delete_model("line")
"""


@pytest.fixture
def registry(place: Place) -> ModelPublisher:
    """Three versions of one model, of which the second is current."""
    found = place.open()
    for number in (1, 2, 3):
        publish(found, number)
    found.promote("line", 2)
    return found


def publish(registry: ModelPublisher, slope: float) -> int:
    weights, zero = np.array([[slope]]), np.zeros(1)
    model = LinearModel(("x",), ("y",), weights, zero, STATISTICS, zero, None, None)
    return registry.publish(replace(CARD), model).card.version


@ALSO_IN_S3
def test_a_deleted_model_is_gone_for_every_reader_at_once(registry: ModelPublisher, place: Place) -> None:
    other = place.open()
    assert (other.current("line").card.version, other.version("line", 3).card.version) == (2, 3)

    registry.delete_model("line")

    for reader in (registry, other):
        for call in (reader.current, reader.delete_model):
            with pytest.raises(ModelNotFound, match='no model "line"'):
                call("line")
        for numbered in (reader.version, reader.file, reader.promote, reader.delete):
            with pytest.raises(ModelNotFound, match='no model "line"'):
                numbered("line", 3)
        assert reader.get_cached("line") is None
        assert reader.models() == []


@EVERYWHERE
def test_numbers_of_deleted_models_are_never_used_again(registry: ModelPublisher, place: Place) -> None:
    registry.delete("line", 3)
    registry.delete_model("line")
    assert publish(registry, 1) == 4
    with pytest.raises(VersionNotFound):
        registry.version("line", 3)
    registry.delete_model("line")
    assert publish(place.open(), 1) == 5


def test_a_number_that_only_the_link_of_a_deleted_model_names_is_not_used_again(
    registry: FolderPublisher, tmp_path: Path
) -> None:
    current = tmp_path / "models" / "line" / "current"
    current.unlink()
    current.symlink_to("000009.safetensors")  # as a copy has it that was made during a promotion
    registry.delete_model("line")
    assert publish(registry, 1) == 10


@EVERYWHERE
def test_files_of_a_deleted_model_are_removed(registry: ModelPublisher, tmp_path: Path) -> None:
    registry.delete_model("line")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_restored_model_is_deleted_again(registry: FolderPublisher, tmp_path: Path) -> None:
    copy = (tmp_path / "models" / "line" / "000003.safetensors").read_bytes()
    registry.delete_model("line")
    (tmp_path / "models" / "line").mkdir()
    (tmp_path / "models" / "line" / "000003.safetensors").write_bytes(copy)
    left = tmp_path / "models" / ".deleted" / "line" / "000003"
    left.mkdir()
    (left / "left").touch()
    registry.delete_model("line")
    assert registry.models() == []
    assert publish(registry, 1) == 4


def test_a_restored_model_uses_no_number_of_the_deleted_one(registry: FolderPublisher, tmp_path: Path) -> None:
    copy = shutil.copytree(tmp_path / "models" / "line", tmp_path / "copy", symlinks=True)
    publish(registry, 1)
    registry.delete_model("line")
    copy.rename(tmp_path / "models" / "line")
    assert publish(registry, 1) == 5


def test_a_record_that_has_no_number_stops_the_next_training_with_its_name(
    registry: FolderPublisher, tmp_path: Path
) -> None:
    registry.delete_model("line")
    (tmp_path / "models" / ".deleted" / "line" / "last").write_text("seven")
    with pytest.raises(ModelFileInvalid, match="deleted/line/last has no number"):
        publish(registry, 1)


@EVERYWHERE
def test_a_check_that_fails_leaves_the_model_whole(registry: ModelPublisher) -> None:
    def check() -> None:
        raise PreconditionFailed("changed")

    with pytest.raises(PreconditionFailed):
        registry.delete_model("line", check)
    assert registry.current("line").card.version == 2
    assert registry.versions("line") == [1, 2, 3]


def test_a_change_that_waits_for_the_deletion_of_its_model_is_rejected(
    registry: FolderPublisher, tmp_path: Path
) -> None:
    # The lock is asked for while the model is being deleted: neither a new folder nor the old one is changed.
    other = FolderPublisher(tmp_path / "models")
    found: list[BaseException] = []
    waiting = threading.Event()

    def promote() -> None:
        waiting.set()
        try:
            other.promote("line", 3)
        except ModelNotFound as error:
            found.append(error)

    thread = threading.Thread(target=promote)

    def check() -> None:
        thread.start()
        waiting.wait()

    registry.delete_model("line", check)
    thread.join()
    assert len(found) == 1
    assert not (tmp_path / "models" / "line").exists()


@pytest.mark.parametrize(("step", "is_deleted"), [("deletion_prepared", False), ("deleted", True)])
def test_a_process_that_is_killed_while_it_deletes_leaves_a_model_whole_or_deleted(
    registry: FolderPublisher, tmp_path: Path, step: str, *, is_deleted: bool
) -> None:
    points = tmp_path / "points"
    points.mkdir()
    (points / step).write_text("SIGKILL")
    ended = subprocess.run(
        [sys.executable, "-c", DELETER, str(tmp_path / "models")],
        env=os.environ | {"CHAOS_FAILPOINTS": str(points)},
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    after = FolderPublisher(tmp_path / "models")
    assert after.models() == ([] if is_deleted else ["line"])
    if is_deleted:
        assert list((tmp_path / "models").rglob("*.safetensors"))
        after.sweep()
        assert not list((tmp_path / "models").rglob("*.safetensors"))
    else:
        assert (after.current("line").card.version, after.versions("line")) == (2, [1, 2, 3])
    assert publish(after, 1) == 4
