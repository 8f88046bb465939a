"""Storage on disk and in buckets."""

from app.errors import StoreMisconfigured, StoreUnavailable
from app.storage.opening import STORES, open_store
from app.storage.store import Blob, BlobChanged, BlobInfo, BlobNotFound, Store

__all__ = [
    "STORES",
    "Blob",
    "BlobChanged",
    "BlobInfo",
    "BlobNotFound",
    "Store",
    "StoreMisconfigured",
    "StoreUnavailable",
    "open_store",
]
