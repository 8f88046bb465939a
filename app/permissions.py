"""Explain to the operator why a file or a folder cannot be written."""

import errno
import os
from pathlib import Path

_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


def why_denied(error: OSError) -> str | None:
    """Return the reason if a write failed because of permissions, or None."""
    path = error.filename2 or error.filename  # A link or a rename has the new path second.
    if error.errno not in _DENIED or not isinstance(path, str | Path):
        return None
    return why_unwritable(Path(path))


def why_unwritable(path: Path) -> str | None:
    """Return a sentence that names the path and the missing permission, or None if this process may write it.

    If the path does not exist, the nearest existing folder above it is checked.
    """
    path = path.absolute()
    while not os.path.exists(path):  # noqa: PTH110 - Path.exists raises if a folder cannot be read
        path = path.parent
    kind, needed = ("folder", os.W_OK | os.X_OK) if path.is_dir() else ("file", os.W_OK)
    if os.access(path, needed):
        return None
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return f"The {kind} {path} is on a read-only file system. It has to be writable."
    status = path.stat()
    return (
        f"The {kind} {path} cannot be written by user {os.geteuid()} of group {os.getegid()}: it belongs to user "
        f"{status.st_uid} and group {status.st_gid} and has the mode {status.st_mode & 0o7777:03o}. Change its owner "
        "or its mode, or run the service as its owner."
    )
