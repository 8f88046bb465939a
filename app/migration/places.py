"""The places of models: a models folder, or a store."""

import contextlib
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from app.registry.bucket.keys import MODELS, marker_key, pointer_key, version_key
from app.registry.bucket.pointer import Pointer
from app.registry.folder import publication
from app.registry.folder.model_folder import ModelFolder
from app.registry.folder.publication import DELETED, UPLOADS, VERSION_FILE, file_name
from app.registry.names import MODEL_NAME
from app.storage.file_lock import FileLock
from app.storage.folder import durable_file, replace_file, replace_link, sync_folder, temporary_path
from app.storage.opening import open_store
from app.storage.store import BlobChanged, BlobNotFound, Store


class MigrationFailed(Exception):
    """The reason, in a sentence for the operator."""


@dataclass(frozen=True)
class ModelState:
    """The numbers of a model's versions in a place, without the files."""

    current: int | None
    last: int  # highest number that was ever used
    versions: tuple[int, ...]  # ascending
    settled: int = 0  # numbers up to this one that are not in `versions` are those of deleted versions
    deleted: frozenset[int] = frozenset()  # further numbers of deleted versions

    def deleted_of(self, versions: Sequence[int]) -> set[int]:
        """Return which of these versions have been deleted here."""
        missing = set(versions).difference(self.versions)
        return {number for number in missing if number <= self.settled or number in self.deleted}

    def agrees(self, other: "ModelState") -> bool:
        return (self.current, self.last, self.versions) == (other.current, other.last, other.versions)


class Place(Protocol):
    """A models folder or a store."""

    name: str  # path or URL, for messages
    parallel: bool  # whether versions may appear in any order
    store: Store | None  # None for a models folder

    def models(self) -> list[str]:
        """Return the names of all models, including deleted ones whose numbers are known."""

    def state(self, model: str) -> ModelState | None:
        """Return the state of a model, or None if it never existed here."""

    def path(self, model: str, number: int) -> str:
        """Return the path or URL of a version's file, for messages."""

    def size(self, model: str, number: int) -> int | None:
        """Return the length of a version's file, or None if there is none."""

    def read(self, model: str, number: int) -> bytes:
        """Return a version's file."""

    def write(self, model: str, number: int, content: bytes) -> None:
        """Write a version's file durably. Raises FileExistsError or BlobChanged if there is another one."""

    def finish(self, model: str, state: ModelState, uploads: dict[str, int]) -> None:
        """Record which versions were published for which uploads, then the numbers and the current version."""


class FolderPlace:
    """A models folder."""

    parallel = False
    store: Store | None = None

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._folder = folder
        self._models = ModelFolder(folder)

    def models(self) -> list[str]:
        if not self._folder.is_dir():
            return []
        records = self._folder / DELETED
        deleted = (entry.name for entry in records.iterdir()) if records.is_dir() else ()
        return sorted({*self._models.models(), *(name for name in deleted if re.fullmatch(MODEL_NAME, name))})

    def state(self, model: str) -> ModelState | None:
        folder = self._folder / model
        if folder.is_dir():
            # Finishes what a killed publisher may have left, and sees no publication half done.
            with _locked(folder):
                return self._state(model)
        return self._state(model)

    def path(self, model: str, number: int) -> str:
        return str(self._folder / model / file_name(number))

    def size(self, model: str, number: int) -> int | None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return Path(self.path(model, number)).stat().st_size
        return None

    def read(self, model: str, number: int) -> bytes:
        return Path(self.path(model, number)).read_bytes()

    def write(self, model: str, number: int, content: bytes) -> None:
        path = Path(self.path(model, number))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_path(path.parent)
        try:
            with durable_file(temporary) as file:
                file.write(content)
            os.link(temporary, path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def finish(self, model: str, state: ModelState, uploads: dict[str, int]) -> None:
        folder = self._folder / model
        if not state.versions:
            records = self._folder / DELETED / model
            records.mkdir(parents=True, exist_ok=True)
            replace_file(records / "last", b"%d\n" % state.last)
            sync_folder(records)
            return
        with _locked(folder):
            publication.prepare_markers(folder)
            for upload, number in uploads.items():
                publication.add_marker(folder, upload, number)
            if state.last > state.versions[-1]:
                (folder / f"{state.last:06d}.deleted").touch()
                replace_link(folder / UPLOADS / ".last", f"../{file_name(state.last)}")
            sync_folder(folder / UPLOADS)
            if state.current is not None:
                replace_link(folder / "current", file_name(state.current))

    def _state(self, model: str) -> ModelState | None:
        folder = self._folder / model
        names = os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208 - only the names
        matches = [match for name in names if (match := VERSION_FILE.fullmatch(name))]
        versions = sorted(int(match[1]) for match in matches if match[2] == "safetensors")
        deleted = frozenset(int(match[1]) for match in matches if match[2] == "deleted")
        last_of_deleted = publication.last_of_deleted(self._folder, model)
        if not versions and not deleted and not last_of_deleted:
            return None
        last = max(last_of_deleted, publication.free_number(folder) - 1, *versions, *deleted)
        return ModelState(self._models.current_number(model), last, tuple(versions), last_of_deleted, deleted)


class StorePlace:
    """The models in a store."""

    parallel = True

    def __init__(self, store: Store) -> None:
        self.name = store.url
        self.store: Store | None = store
        self._store = store

    def models(self) -> list[str]:
        return [name for name in self._store.list_names(MODELS) if re.fullmatch(MODEL_NAME, name)]

    def state(self, model: str) -> ModelState | None:
        pointer, _ = self._pointer(model)
        if not pointer.last:  # also that of a publisher which was killed before the first version
            return None
        return ModelState(pointer.current, pointer.last, tuple(pointer.numbers()), settled=pointer.last)

    def path(self, model: str, number: int) -> str:
        return f"{self.name}/{version_key(model, number)}"

    def size(self, model: str, number: int) -> int | None:
        with contextlib.suppress(BlobNotFound):
            return self._store.info(version_key(model, number)).size
        return None

    def read(self, model: str, number: int) -> bytes:
        return self._store.get(version_key(model, number)).content

    def write(self, model: str, number: int, content: bytes) -> None:
        self._store.put_if_absent(version_key(model, number), content)

    def finish(self, model: str, state: ModelState, uploads: dict[str, int]) -> None:
        before, etag = self._pointer(model)
        for upload, number in uploads.items():
            self._mark(marker_key(model, upload), number)
        pointer = Pointer(
            current=state.current,
            last=max(state.last, before.last),
            versions=_runs(state.versions),
            deleted=before.deleted,
            revision=before.revision + 1,
            nonce=secrets.token_hex(8),
        )
        if etag is None:
            self._store.put_if_absent(pointer_key(model), pointer.encode())
        else:
            self._store.put_if_match(pointer_key(model), pointer.encode(), etag)

    def _pointer(self, model: str) -> tuple[Pointer, str | None]:
        try:
            blob = self._store.get(pointer_key(model))
        except BlobNotFound:
            return Pointer(), None
        return Pointer.decode(blob.content, f"{self.name}/{pointer_key(model)}"), blob.etag

    def _mark(self, key: str, number: int) -> None:
        content = msgspec.json.encode({"number": number})
        with contextlib.suppress(BlobChanged):
            self._store.put_if_absent(key, content)
            return
        blob = self._store.get(key)
        if msgspec.json.decode(blob.content)["number"] < number:
            self._store.put_if_match(key, content, blob.etag)


def open_place(url: str) -> Place:
    """Return the store at a URL, or the models folder at a path. Raises MigrationFailed."""
    if "://" not in url:
        return FolderPlace(Path(url))
    try:
        return StorePlace(open_store(url))
    except ValueError as error:
        raise MigrationFailed(f"{url.partition('://')[0]}://…: {error}.") from None


def _runs(versions: Sequence[int]) -> tuple[tuple[int, int], ...]:
    runs: list[tuple[int, int]] = []
    for number in versions:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = runs[-1][0], number
        else:
            runs.append((number, number))
    return tuple(runs)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a model's folder against publications and promotions. Finish an interrupted one, if it can be written."""
    with contextlib.closing(FileLock(folder, os.O_RDONLY)) as lock:
        lock.acquire()
        with contextlib.suppress(OSError):  # the folder is read-only
            publication.complete(folder)
        yield
        os.fsync(lock.fileno())
