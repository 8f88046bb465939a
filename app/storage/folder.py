"""Durability of the names in a folder."""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Fsync a folder, so that its names survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
