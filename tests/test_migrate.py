"""The command that copies models between a models folder and a store."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from buckets import SECRET_KEY, bucket_url
from line import CARD
from models_folder import everything_under, file_of, flip_a_bit, line, published, slope
from service import ROOT

from app.errors import StoreUnavailable
from app.migration.copy import migrate
from app.migration.places import FolderPlace, MigrationFailed, ModelState, StorePlace, open_place
from app.registry.aliases import Aliases
from app.registry.bucket.publisher import BucketPublisher
from app.registry.folder.publisher import FolderPublisher
from app.storage import Store, open_store
from app.storage.folder_store import FolderStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Models with deleted versions, uploads, an older version as the current one, and a deleted model."""
    path = tmp_path / "models"
    path.mkdir()
    registry = FolderPublisher(path)
    published(registry, 1, 2, 3, 4, 5)
    registry.publish(replace(CARD, upload="first"), line(6), promote=True)
    registry.publish(replace(CARD, upload="a.b"), line(7))
    published(registry, 8)
    registry.delete("line", 2)
    registry.delete("line", 8)
    published(registry, 1, 2, model="draft")
    published(registry, 1, 2, 3, model="gone", promoted=3)
    registry.delete_model("gone")
    return path


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(bucket_url() if request.param == "s3" else (tmp_path / "store").as_uri())


def place(models: Path | Store) -> FolderPlace | StorePlace:
    return FolderPlace(models) if isinstance(models, Path) else StorePlace(models)


def copied(source: Path | Store, target: Path | Store) -> list[str]:
    """Migrate, and return what was printed."""
    lines: list[str] = []
    migrate(place(source), place(target), lines.append)
    return lines


def content_of(store: Store) -> dict[str, bytes]:
    return {blob.key: store.get(blob.key).content for blob in store.list_blobs("")}


def check(registry: FolderPublisher | BucketPublisher) -> None:
    """Check that these are the models of the fixture, and that no number is used again."""
    assert registry.models() == ["draft", "line"]
    assert registry.versions("line") == [1, 3, 4, 5, 6, 7]
    assert [slope(registry.version("line", number)) for number in (1, 3, 7)] == [1, 3, 7]
    assert registry.current("line").card.version == 6
    assert registry.current_number("draft") is None
    first = registry.find("line", "first")
    assert first
    assert first.card.version == 6
    assert registry.publish(CARD, line(9)).card.version == 9
    assert registry.publish(replace(CARD, model="draft"), line(3)).card.version == 3
    assert registry.publish(replace(CARD, model="gone"), line(4)).card.version == 4


def test_models_go_to_a_store_and_back(folder: Path, store: Store, tmp_path: Path) -> None:
    before = everything_under(folder)
    copied(folder, store)
    copied(store, tmp_path / "back")

    assert everything_under(folder) == before
    back = everything_under(tmp_path / "back")
    assert {name: back.get(name) for name in before if name.endswith((".safetensors", "current"))} == {
        name: content for name, content in before.items() if name.endswith((".safetensors", "current"))
    }
    check(FolderPublisher(tmp_path / "back"))
    other = BucketPublisher(store).find("line", "a.b")
    assert other
    assert other.card.version == 7
    check(BucketPublisher(store))


def test_a_repeated_migration_copies_only_what_is_new(folder: Path, store: Store) -> None:
    copied(folder, store)
    before = content_of(store)
    assert copied(folder, store)[-1].endswith("Versions copied: 0. All were compared with their copies.")
    assert content_of(store) == before

    FolderPublisher(folder).publish(CARD, line(9), promote=True)
    assert copied(folder, store)[-1].endswith("Versions copied: 1. All were compared with their copies.")
    assert slope(BucketPublisher(store).current("line")) == 9


def test_an_interrupted_migration_continues(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted_after(steps: int, target: StorePlace | FolderPlace) -> None:
        for name in ("write", "read", "finish"):
            done: Callable[..., object] = getattr(target, name)

            def step(*given: object, done: Callable[..., object] = done) -> object:
                nonlocal steps
                steps -= 1
                if steps < 0:
                    raise StoreUnavailable("gone")
                return done(*given)

            monkeypatch.setattr(target, name, step)

    for steps in range(0, 18, 3):  # A migration writes 8 versions, reads them again, and finishes 3 models.
        store = open_store((tmp_path / f"store{steps}").as_uri())
        back = tmp_path / f"back{steps}"
        for source, target in ((FolderPlace(folder), StorePlace(store)), (StorePlace(store), FolderPlace(back))):
            interrupted_after(steps, target)
            with pytest.raises(StoreUnavailable):
                migrate(source, target, lambda _: None)
            monkeypatch.undo()
            migrate(source, target, lambda _: None)
        check(FolderPublisher(back))


def other_content(store: Store) -> None:
    store.put("models/line/000003.safetensors", b"other")


def another_version(store: Store) -> None:
    BucketPublisher(store).publish(CARD, line(5))


def deletion(store: Store) -> None:
    BucketPublisher(store).delete("line", 3)


def promotion(store: Store) -> None:
    BucketPublisher(store).promote("line", 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (other_content, "000003.safetensors differs from"),
        (another_version, "has version 9, which is not in"),
        (deletion, "had a version 3, which was deleted there"),
        (promotion, "has version 1 as the current one, and .* has 6"),
    ],
)
def test_nothing_that_differs_is_overwritten(
    folder: Path, store: Store, change: Callable[[Store], None], reason: str
) -> None:
    copied(folder, store)
    change(store)
    before = content_of(store)
    with pytest.raises(MigrationFailed, match=reason):
        copied(folder, store)
    assert content_of(store) == before

    if change is not another_version:  # which the folder may get
        with pytest.raises(MigrationFailed):
            copied(store, folder)


def test_a_damaged_version_is_copied_as_it_is(folder: Path, store: Store) -> None:
    flip_a_bit(file_of(folder, 3))
    lines = copied(folder, store)
    assert [text for text in lines if text.startswith("Warning: ") and "000003" in text]
    assert store.get("models/line/000003.safetensors").content == file_of(folder, 3).read_bytes()


def test_a_version_that_is_missing_is_named(folder: Path, store: Store, tmp_path: Path) -> None:
    copied(folder, store)
    store.delete("models/line/000004.safetensors")
    with pytest.raises(MigrationFailed, match=f"^{store.url}/models/line/000004.safetensors is missing"):
        copied(store, tmp_path / "back")


def test_a_version_published_meanwhile_is_copied_too(folder: Path, store: Store) -> None:
    class Busy(FolderPlace):
        states = 0

        def state(self, model: str) -> ModelState | None:
            self.states += 1
            if self.states == 4:  # the second look at the second model
                FolderPublisher(folder).publish(CARD, line(9), promote=True)
            return super().state(model)

    migrate(Busy(folder), StorePlace(store), lambda _: None)
    assert slope(BucketPublisher(store).current("line")) == 9
    assert BucketPublisher(store).versions("line")[-1] == 9


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "app.serve", "migrate", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)


def test_the_command_prints_progress_or_one_sentence(folder: Path, tmp_path: Path) -> None:
    url = bucket_url()
    done = run("--from", str(folder), "--to", url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "line: 6 of 6 versions, 6 copied\n" in done.stdout
    check(BucketPublisher(open_store(url)))

    done = run("--from", f"s3://someone:{SECRET_KEY}@no-such-bucket", "--to", str(tmp_path / "back"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("s3://no-such-bucket cannot be used: there is no such bucket")
    assert done.stderr.count("\n") == 1
    assert SECRET_KEY not in done.stderr


def test_aliases_and_recorded_evaluations_move_with_their_state_folder(folder: Path, tmp_path: Path) -> None:
    state, store, back = tmp_path / "state", tmp_path / "store", tmp_path / "state of back"
    back.mkdir()
    Aliases(FolderStore(state)).set("line", "champion", 3)
    FolderStore(state).put("monitoring/evaluations/line/20260101T000000.000000Z-0.json", b"{}")
    there = ["--from", str(folder), "--to", store.as_uri()]

    without, moved = run(*there), run(*there, "--from-state", str(state))
    again = run("--from", store.as_uri(), "--to", str(tmp_path / "back"), "--to-state", str(back))
    Aliases(FolderStore(back)).set("line", "champion", 4)
    different = run("--from", store.as_uri(), "--to", str(tmp_path / "back"), "--to-state", str(back))
    missing = run(*there, "--from-state", str(tmp_path / "nowhere"))

    assert "Aliases and recorded evaluations were not copied" in without.stdout
    for done in (moved, again):
        assert "Aliases and recorded evaluations copied: 2.\n" in done.stdout
        assert "Not copied: jobs, recorded predictions with their outcomes" in done.stdout
    assert Aliases(open_store(store.as_uri())).all("line") == {"champion": 3}
    assert [blob.key for blob in FolderStore(back).list_blobs("monitoring/")] == [
        "monitoring/evaluations/line/20260101T000000.000000Z-0.json"
    ]
    assert Aliases(FolderStore(back)).all("line") == {"champion": 4}
    assert "aliases/line.json differs from" in different.stdout
    assert (missing.returncode, missing.stderr.startswith("There is no folder")) == (1, True)


def test_a_wrong_place_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MigrationFailed, match="There are no models in nowhere"):
        migrate(open_place("nowhere"), FolderPlace(tmp_path))
    with pytest.raises(MigrationFailed, match="ftp://…: expected a URL"):
        open_place("ftp://host/folder")
