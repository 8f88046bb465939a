"""Found first by a service whose path begins here: notes each fsync, link and rename, in the order they happen."""

import os
from typing import Any

_file = os.open(os.environ["CHAOS_RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
_fsync, _link, _rename = os.fsync, os.link, os.rename


def _note(act: str, inode: int, folder: int = 0) -> None:
    os.write(_file, f"{act} {inode} {folder}\n".encode())


def _folder(path: Any) -> int:
    return os.stat(os.path.dirname(path)).st_ino


def fsync(descriptor: int) -> None:
    _fsync(descriptor)
    _note("fsync", os.fstat(descriptor).st_ino)


def link(source: Any, target: Any, **options: Any) -> None:
    _link(source, target, **options)
    _note("link", os.lstat(target).st_ino, _folder(target))


def rename(source: Any, target: Any, **options: Any) -> None:
    kind = "point" if os.path.islink(source) else "link"
    inode = os.lstat(source).st_ino
    _rename(source, target, **options)
    _note(kind, inode, _folder(target))


for noting in (fsync, link, rename):
    setattr(os, noting.__name__, noting)
