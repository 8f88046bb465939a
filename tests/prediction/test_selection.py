import asyncio
import shutil
import threading
from pathlib import Path

import pytest

from app.errors import ModelNotFound, VersionNotFound
from app.prediction.selection import VersionSelector
from app.registry.folder import reader as module
from app.registry.folder.publisher import FolderPublisher
from app.registry.version_file import Version, read


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """Return the threads in which files were read."""
    found = []

    def noted(path: Path) -> Version:
        found.append(threading.current_thread())
        return read(path)

    monkeypatch.setattr(module, "read", noted)
    return found


@pytest.mark.parametrize("number", [None, 1])
def test_a_file_is_read_once_and_not_in_the_thread_of_the_event_loop(
    models: Path, reads: list[threading.Thread], number: int | None
) -> None:
    choose = VersionSelector(FolderPublisher(models), "crop-yield", number)

    async def ask_often() -> list[Version]:
        return [
            await choose.resolve_async(),
            *await asyncio.gather(*(choose.resolve_async() for _ in range(5))),
            choose(),
        ]

    assert len(set(asyncio.run(ask_often()))) == 1
    assert len(reads) == 1
    assert reads[0] is not threading.main_thread()


@pytest.mark.parametrize("small", [0, 1 << 20])
def test_a_promotion_is_seen_at_the_next_lookup_and_a_large_file_is_read_in_a_thread(
    models: Path, reads: list[threading.Thread], small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALL_BYTES", small)
    shutil.copy(models / "crop-yield" / "000001.safetensors", models / "crop-yield" / "000002.safetensors")
    registry = FolderPublisher(models)
    choose = VersionSelector(registry, "crop-yield")

    async def look_promote_and_look() -> list[int]:
        numbers = [(await choose.resolve_async()).card.version]
        await asyncio.to_thread(registry.promote, "crop-yield", 2)
        return [*numbers, (await choose.resolve_async()).card.version]

    assert asyncio.run(look_promote_and_look()) == [1, 2]
    assert (reads[-1] is threading.main_thread()) == (small > 0)


def test_a_version_that_does_not_exist_is_not_found_with_either_method(models: Path) -> None:
    for choose, error in (
        (VersionSelector(FolderPublisher(models), "crop-yield", 2), VersionNotFound),
        (VersionSelector(FolderPublisher(models), "other", 1), ModelNotFound),
        (VersionSelector(FolderPublisher(models), "other"), ModelNotFound),
        (VersionSelector(FolderPublisher(models), "../models/crop-yield"), ModelNotFound),
    ):
        with pytest.raises(error):
            choose()
        with pytest.raises(error):
            asyncio.run(choose.resolve_async())
