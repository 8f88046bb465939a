"""Bugs that omit an fsync, so a power failure may lose a write."""

import functools
import os
import stat
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from chaos.planting import after

P = ParamSpec("P")
R = TypeVar("R")


def _without_fsync(function: Callable[P, R], of: Callable[[int], bool]) -> Callable[P, R]:
    """Return `function` without the fsyncs of files whose mode satisfies `of`: regular files or folders."""
    fsync = os.fsync
    inside = threading.local()

    def sometimes(fd: Any) -> None:
        if not (getattr(inside, "function", False) and of(os.fstat(fd).st_mode)):
            fsync(fd)

    @functools.wraps(function)
    def call(*args: P.args, **named: P.kwargs) -> R:
        inside.function = True
        try:
            return function(*args, **named)
        finally:
            inside.function = False

    os.fsync = sometimes
    return call


@after("app.registry.folder.publisher")
def no_fsync_of_a_version() -> None:
    from app.registry.folder.publisher import FolderPublisher

    FolderPublisher.publish = _without_fsync(FolderPublisher.publish, stat.S_ISREG)


@after("app.registry.folder.publisher")
def no_fsync_of_the_folder_of_a_version() -> None:
    from app.registry.folder.publisher import FolderPublisher

    FolderPublisher.publish = _without_fsync(FolderPublisher.publish, stat.S_ISDIR)


@after("app.registry.folder.publisher")
def no_fsync_of_a_promotion() -> None:
    from app.registry.folder.publisher import FolderPublisher

    FolderPublisher.promote = _without_fsync(FolderPublisher.promote, stat.S_ISDIR)


@after("app.training.uploads")
def no_fsync_of_an_upload() -> None:
    from app.training.uploads import UploadStore

    UploadStore.sync = _without_fsync(UploadStore.sync, stat.S_ISREG)


@after("app.training.uploads")
def no_fsync_of_the_folder_of_an_upload() -> None:
    from app.training.uploads import UploadStore

    UploadStore.sync = _without_fsync(UploadStore.sync, stat.S_ISDIR)


@after("app.training.checkpoints")
def no_fsync_of_a_checkpoint() -> None:
    from app.training.checkpoints import Checkpoint

    Checkpoint.save = _without_fsync(Checkpoint.save, stat.S_ISREG)
