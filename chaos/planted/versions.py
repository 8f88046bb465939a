"""Bugs that write half a version, publish it twice, promote the wrong one, or skip a check."""

import contextlib
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from chaos.planting import after

INTERRUPTED_SECONDS = 0.01


@after("app.registry.folder.publication")
def written_in_place() -> None:
    """The file gets its number before it is completely written."""
    from app.failpoints import failpoint

    def copy(src: Any, dst: Any, **options: Any) -> None:
        content = Path(src).read_bytes()
        with open(dst, "xb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            failpoint("linked")
            file.write(content[len(content) // 2 :])

    os.link = copy


@after("app.registry.folder.publisher")
def numbered_by_rename() -> None:
    """A file is renamed to the number that was free before the folder was locked, even if it is taken by now."""
    from app.registry.folder import publisher
    from app.registry.model_card import ModelCard

    complete = publisher._completed
    numbered: dict[str | None, ModelCard] = {}

    def complete_once(card: ModelCard, folder: Path) -> ModelCard:
        return numbered.setdefault(card.upload, complete(card, folder))

    def rename(src: Any, dst: Any, **options: Any) -> None:
        os.rename(src, dst)

    publisher._completed = complete_once
    os.link = rename


@after("app.registry.folder.publication")
def published_twice() -> None:
    """The version of an upload is not found, so a job that is run again publishes again."""
    from app.registry.folder import publication

    def find_none(folder: Path, upload: str) -> None:
        return None

    publication.published_for = find_none


@after("app.registry.folder.publication")
def promoted_by_removing() -> None:
    """For a moment there is no pointer to the current version."""
    rename = os.rename

    def remove_first(src: Any, dst: Any, **options: Any) -> None:
        if Path(dst).name == "current":
            Path(dst).unlink(missing_ok=True)
            time.sleep(INTERRUPTED_SECONDS)
        rename(src, dst, **options)

    os.rename = remove_first


@after("app.registry.folder.reader")
def pointer_not_read() -> None:
    """The current version is read only once."""
    from app.registry.folder.reader import FolderReader
    from app.registry.version_file import Version

    get_cached = FolderReader.get_cached
    seen: dict[str, Version] = {}

    def first_seen(self: FolderReader, model: str, number: int | None = None) -> Version | None:
        if number is None and model in seen:
            return seen[model]
        found = get_cached(self, model, number)
        if number is None and found is not None:
            seen[model] = found
        return found

    FolderReader.get_cached = first_seen


@after("app.registry.folder.reader")
def pointer_believed_by_the_time_of_day() -> None:
    """The pointer is read at most once per millisecond, by a clock that may be set back."""
    from app.registry.folder.reader import FolderReader
    from app.registry.version_file import Version

    get_cached = FolderReader.get_cached
    believed: dict[str, tuple[float, Version]] = {}

    def believe(self: FolderReader, model: str, number: int | None = None) -> Version | None:
        if number is not None:
            return get_cached(self, model, number)
        until, version = believed.get(model, (0.0, None))
        if time.time() < until:
            return version
        found = get_cached(self, model)
        if found is not None:
            believed[model] = time.time() + 0.001, found
        return found

    FolderReader.get_cached = believe


@after("app.registry.version_file")
def checksums_not_verified() -> None:
    """Every computed checksum equals any other."""
    from app.registry import version_file

    original = version_file.checksum

    class EqualToAll(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, _: object) -> bool:
            return True

        def __ne__(self, _: object) -> bool:
            return False

    def any_checksum(card: str, tensors: Any) -> str:
        return EqualToAll(original(card, tensors))

    version_file.checksum = any_checksum


@after("app.registry.folder.publisher")
def failed_promotion_swallowed() -> None:
    """A failure to write the pointer is ignored."""
    from app.errors import Unavailable
    from app.registry.folder.publisher import FolderPublisher

    promote = FolderPublisher.promote

    def swallow(self: FolderPublisher, *args: Any, **named: Any) -> None:
        with contextlib.suppress(Unavailable):
            promote(self, *args, **named)

    FolderPublisher.promote = swallow


@after("app.training.parent")
def parent_not_compared() -> None:
    """A version is promoted even if another one became current since its job began."""
    from app.registry.base import ModelPublisher
    from app.training.parent import Parent
    from app.training.request import TrainingRequest

    of = Parent.of

    def expecting_any(request: TrainingRequest, registry: ModelPublisher) -> Parent:
        return replace(of(request, registry), expected="any")

    Parent.of = staticmethod(expecting_any)
