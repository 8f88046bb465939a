"""Registries in a folder and in stores, so that the same tests run over all of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from buckets import bucket_url

from app.registry.base import ModelPublisher
from app.registry.bucket.publisher import BucketPublisher
from app.registry.folder.publisher import FolderPublisher
from app.storage.folder_store import FolderStore
from app.storage.opening import open_store

Kind = Literal["folder", "store", "s3"]
EVERYWHERE = pytest.mark.parametrize("place", ["folder", "store"], indirect=True)
ALSO_IN_S3 = pytest.mark.parametrize("place", ["folder", "store", "s3"], indirect=True)


@dataclass(frozen=True)
class Place:
    """Where a registry is. Each call of `open` returns a registry as another process has it."""

    kind: Kind
    folder: Path  # of the models, with the same names of versions' files in a folder and in a store of this machine
    open: Callable[[], ModelPublisher]

    @classmethod
    def new(cls, kind: Kind, parent: Path) -> "Place":
        """Return the place of a new registry in the models folder of a folder, or in a bucket."""
        folder = parent / "models"
        folder.mkdir()
        if kind == "folder":
            return cls(kind, folder, lambda: FolderPublisher(folder))
        if kind == "store":
            return cls(kind, folder, lambda: BucketPublisher(FolderStore(parent)))
        url = bucket_url()
        return cls(kind, folder, lambda: BucketPublisher(open_store(url)))
