"""Versions of a line in a store, written without the registry's own publisher."""

from dataclasses import replace

from line import CARD
from models_folder import line

from app.registry.bucket.keys import pointer_key, version_key
from app.registry.bucket.pointer import Pointer
from app.registry.version_file import encode
from app.storage.store import BlobNotFound, Store


def pointer_of(store: Store, model: str = "line") -> Pointer:
    try:
        return Pointer.decode(store.get(pointer_key(model)).content, model)
    except BlobNotFound:
        return Pointer()


def put_pointer(store: Store, pointer: Pointer, model: str = "line") -> None:
    store.put(pointer_key(model), pointer.encode())


def put_versions(store: Store, *slopes: float, model: str = "line", promoted: int | None = None) -> None:
    """Publish a version for each slope, and promote the last one, or the one with the number `promoted`."""
    pointer = pointer_of(store, model)
    for slope in slopes:
        number = pointer.last + 1
        store.put(version_key(model, number), encode(replace(CARD, model=model, version=number), line(slope)))
        pointer = pointer.with_version(number, promote=True)
    put_pointer(store, pointer if promoted is None else pointer.with_current(promoted), model)
