"""Memory limits of the Linux control groups of this process, and so of its container.

Version 1 has one hierarchy per resource, version 2 one for all. Their files differ in name, and both may be mounted.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

PROCESS = Path("/proc/self")

# The file with the limit, by the type of the file system.
_FILES = {"cgroup": "memory.limit_in_bytes", "cgroup2": "memory.max"}


def memory_limits(process: Path = PROCESS) -> list[int]:
    """Return the limits on memory, in bytes, of the process's control groups and all above them that are mounted.

    The smallest one applies. `process` is the folder of the process in /proc.
    """
    limits = []
    for group, top, file in _memory_groups(process):
        for folder in (group, *group.parents):
            with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
                limits.append(int((folder / file).read_text()))
            if folder == top:
                break
    return limits


def _memory_groups(process: Path) -> Iterator[tuple[Path, Path, str]]:
    """Yield the folder of each group, the mount point of its hierarchy, and the name of the limit's file."""
    paths = dict(_paths(process))
    for line in _lines(process / "mountinfo"):
        # 36 35 98:0 /root /place options, then optional fields, then - type source options; see proc(5).
        before, _, after = line.partition(" - ")
        root, mount_point = (_unescaped(word) for word in before.split()[3:5])
        file_system, _, options = after.split()
        path = paths.get(file_system) if file_system == "cgroup2" or "memory" in options.split(",") else None
        if file_system in _FILES and path is not None:
            top = Path(mount_point)
            # In a container, its own group may be mounted as the root, while its path is the one on the host.
            below = Path(path).relative_to(root) if Path(path).is_relative_to(root) else Path()
            yield (top if ".." in below.parts else top / below), top, _FILES[file_system]


def _paths(process: Path) -> Iterator[tuple[str, str]]:
    """Yield the path of the process's memory group for each version, by the type of its file system."""
    for line in _lines(process / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield "cgroup2", path
        elif "memory" in controllers.split(","):
            yield "cgroup", path


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # not Linux, or /proc is not mounted
        return []


def _unescaped(word: str) -> str:
    return word.encode().decode("unicode_escape")  # a space is \\040
