"""Free space on a disk. A part stays reserved, so that the job database can be written even if rows fill the rest."""

import os
from pathlib import Path

RESERVED_BYTES = 256 << 20  # Bytes left free on a disk.
RESERVED_SHARE = 0.1  # Share of a small disk that is left free instead.

CHECK_BYTES = 1 << 24  # Bytes written between two checks.


def has_room(file: int | Path, more: int = 0) -> bool:
    """Return True if `more` bytes may be written to the disk of a file, given as its path or descriptor."""
    disk = os.statvfs(file)
    reserved = min(RESERVED_BYTES, RESERVED_SHARE * disk.f_blocks * disk.f_frsize)
    return disk.f_bavail * disk.f_frsize - more >= reserved
