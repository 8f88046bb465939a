"""Storage on disk and in buckets."""

from app.storage.opening import STORES, open_store
from app.storage.store import Blob, BlobChanged, BlobInfo, BlobNotFound, Store

__all__ = [
    "STORES",
    "Blob",
    "BlobChanged",
    "BlobInfo",
    "BlobNotFound",
    "Store",
    "open_store",
]
