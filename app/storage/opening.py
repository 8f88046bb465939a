"""The stores by the scheme of their URL.

obstore takes time and memory to load, so it is imported only if a bucket is opened.
"""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from app.storage.store import Store


def _open_folder(url: str) -> Store:
    from app.storage.folder_store import FolderStore

    return FolderStore(Path(unquote(urlsplit(url).path)))


def _open_bucket(url: str) -> Store:
    from app.storage.object_store import ObjectStore

    return ObjectStore(url)


STORES: dict[str, Callable[[str], Store]] = {
    "file": _open_folder,
    "s3": _open_bucket,
    "gs": _open_bucket,
    "az": _open_bucket,
}


def open_store(url: str) -> Store:
    """Return the store at a URL such as s3://BUCKET/PREFIX or file:///FOLDER. Nothing is requested yet.

    Raises ValueError if the URL is not valid, StoreMisconfigured if the environment is not valid for it.
    """
    parts = urlsplit(url)
    if parts.scheme not in STORES:
        raise ValueError(f"expected a URL that begins with one of {', '.join(f'{known}://' for known in STORES)}")
    if (parts.scheme == "file") == bool(parts.netloc):
        raise ValueError("expected a bucket or container after s3://, gs:// or az://, or a folder after file://")
    return STORES[parts.scheme](url)
