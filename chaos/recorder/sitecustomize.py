"""Found first by a service whose path begins here: notes each fsync, link and rename, in the order they happen."""

import json
import os
from typing import Any

_file = os.open(os.environ["CHAOS_RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
_fsync, _link, _rename = os.fsync, os.link, os.rename


def _note(act: str, path: Any, target: Any = None) -> None:
    names = [None if name is None else os.path.abspath(name) for name in (path, target)]
    os.write(_file, json.dumps([os.getpid(), act, *names]).encode() + b"\n")


def fsync(descriptor: int) -> None:
    _fsync(descriptor)
    _note("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))


def link(source: Any, target: Any, **options: Any) -> None:
    _link(source, target, **options)
    _note("link", source, target)


def rename(source: Any, target: Any, **options: Any) -> None:
    kind = "point" if os.path.islink(source) else "link"
    _rename(source, target, **options)
    _note(kind, source, target)


for noting in (fsync, link, rename):
    setattr(os, noting.__name__, noting)
