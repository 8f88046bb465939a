"""Room on a disk. Some of it is left to others: the job database has to be written even when rows fill the rest."""

import os
from pathlib import Path

RESERVED_BYTES = 256 << 20
RESERVED_SHARE = 0.1  # of a small disk

CHECK_BYTES = 1 << 24  # to write, after which the room is looked at again


def has_room(file: int | Path, more: int = 0) -> bool:
    """Whether so many bytes more may be written to the disk of a file, given by its path or descriptor."""
    disk = os.statvfs(file)
    reserved = min(RESERVED_BYTES, RESERVED_SHARE * disk.f_blocks * disk.f_frsize)
    return disk.f_bavail * disk.f_frsize - more >= reserved
