"""Histories of all workers, one blob for each, in a folder or in the store that replicas share.

A worker takes the first free slot of its state folder. A kernel lock shows which slots are taken. The next worker that
takes a slot continues its blob, so a restart loses nothing that was written.
"""

import contextlib
import logging
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from app.errors import StoreUnavailable
from app.monitoring.history import TIERS, History
from app.monitoring.wire import MAX_BLOB_BYTES, NotAHistory, decode, encode
from app.storage.file_lock import FileLock
from app.storage.folder import replace_file
from app.storage.folder_store import FolderStore
from app.storage.store import BlobInfo, BlobNotFound, Store

PREFIX = "monitoring/served/"
SUFFIX = ".msgpack"
MAX_SLOTS = 256  # Workers of one state folder that share their histories.
MAX_BLOBS = 1000  # Blobs that are read.
MAX_CACHED_BYTES = 16 << 20  # Bytes of blobs whose histories stay in memory between two readings.
FOLDER_SECONDS, BUCKET_SECONDS = 10.0, 60.0  # Seconds between two writes of a history to a folder, and to a bucket.
FOLDER_READ_SECONDS, BUCKET_READ_SECONDS = 1.0, 20.0  # Seconds between two readings of the other histories.
LOG_SECONDS = 600.0  # Seconds between two records of the same fault.
KEPT = timedelta(seconds=TIERS[-1].until + TIERS[-1].seconds)  # Age of a blob whose buckets have all aged out.

_log = logging.getLogger(__name__)


class Slot(NamedTuple):
    """A slot of the state folder that this worker has taken, and the history that the worker before left there."""

    lock: FileLock
    key: str
    history: History


class SharedHistories:
    """Reads the histories of other workers, and writes this worker's. Thread-safe.

    Every method but `others` may wait for the store.
    """

    def __init__(self, folder: Path, store: Store | None) -> None:
        """Keep locks in `folder`, and the blobs there too unless there is a store."""
        self._folder = folder
        self._store = store or FolderStore(folder)
        self._prefix = PREFIX if store is not None else PREFIX.partition("/")[2]
        self._is_local = self._store.url.startswith("file:")
        self.write_seconds = FOLDER_SECONDS if self._is_local else BUCKET_SECONDS
        self._read_seconds = FOLDER_READ_SECONDS if self._is_local else BUCKET_READ_SECONDS
        self._slot: Slot | None = None
        self._others: dict[str, History] = {}
        self._read_at = -LOG_SECONDS
        self._cached: dict[str, tuple[str, History]] = {}  # tag and history by key
        self._logged: dict[str, float] = {}
        self._reading = threading.Lock()

    def find_slot(self) -> Slot | None:
        """Return a slot for this worker, or None if there is none now."""
        try:
            replica = self._replica()
            for number in range(MAX_SLOTS):
                lock = FileLock(self._folder / f".slot-{number}.lock")
                if lock.acquire(blocking=False):
                    break
            else:
                return None
        except OSError as error:
            self._log_sometimes("served rows not stored", f"{self._folder}: {error.strerror}.")
            return None
        key = f"{self._prefix}{replica}-{number}{SUFFIX}"
        try:
            history = self._get(key)
        except StoreUnavailable as error:
            self._log_sometimes("served rows not stored", error.message)
            lock.close()
            return None
        return Slot(lock, key, history or History())

    def take(self, slot: Slot) -> None:
        """Make a slot this worker's. Its history no longer counts as one of the others."""
        self._slot = slot

    @property
    def has_slot(self) -> bool:
        return self._slot is not None

    def write(self, history: History) -> bool:
        """Write this worker's history. Return False if it is not written."""
        if self._slot is None:
            return False
        try:
            self._store.put(self._slot.key, encode(history))
        except StoreUnavailable as error:
            self._log_sometimes("served rows not stored", error.message)
            return False
        return True

    def others(self) -> list[History]:
        """Return the last histories that other workers, dead or alive, have written. They must not be changed.

        A folder is read for it. A bucket may take seconds, so only `poll` reads it.
        """
        if self._is_local:
            self._refresh()
        own = self._slot.key if self._slot else None
        return [history for key, history in self._others.items() if key != own]

    def poll(self) -> None:
        """Read the histories of the other workers if they are in a bucket. Called again and again by one thread."""
        if not self._is_local:
            self._refresh()

    def _refresh(self) -> None:
        """Read the histories of the other workers if they were not read for a while."""
        with self._reading:
            if time.monotonic() - self._read_at >= self._read_seconds:
                self._others = self._read_others(self._others)
                self._read_at = time.monotonic()

    def sweep(self) -> None:
        """Remove the blobs of dead workers whose buckets have all aged out."""
        oldest = datetime.now(UTC) - KEPT
        with contextlib.suppress(StoreUnavailable):
            for info in list(self._store.list_blobs(self._prefix)):
                if info.modified < oldest and not (self._slot and info.key == self._slot.key):
                    self._store.delete(info.key)

    def close(self) -> None:
        """Free the slot."""
        if self._slot is not None:
            self._slot.lock.close()
        self._slot = None

    def _replica(self) -> str:
        """Return the name of this state folder among those that share the store."""
        path = self._folder / ".replica"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(self._folder / ".replica.lock"):
            with contextlib.suppress(FileNotFoundError):
                if (name := path.read_text()).isalnum():
                    return name
            name = uuid.uuid4().hex[:16]
            replace_file(path, name.encode())
        return name

    def _read_others(self, before: dict[str, History]) -> dict[str, History]:
        histories: dict[str, History] = {}
        cached: dict[str, tuple[str, History]] = self._cached
        total = 0
        self._cached = {}
        try:
            for info in list(self._store.list_blobs(self._prefix))[:MAX_BLOBS]:
                if (self._slot and info.key == self._slot.key) or not info.key.endswith(SUFFIX):
                    continue
                known = cached.get(info.key)
                history = known[1] if known and known[0] == info.etag else self._get(info.key, info)
                if history is None:
                    continue
                histories[info.key] = history
                total += info.size
                if total <= MAX_CACHED_BYTES:
                    self._cached[info.key] = info.etag, history
        except StoreUnavailable as error:
            self._log_sometimes("served rows of other workers not read", error.message)
            return before
        return histories

    def _get(self, key: str, info: BlobInfo | None = None) -> History | None:
        """Return the history in a blob, or None if there is none that can be read."""
        try:
            if (info or self._store.info(key)).size > MAX_BLOB_BYTES:
                raise NotAHistory("it is too long")
            return decode(self._store.get(key).content)
        except BlobNotFound:
            return None
        except NotAHistory as error:
            self._log_sometimes("served rows ignored", f"{self._store.url}/{key}: {error}.")
            return None

    def _log_sometimes(self, message: str, reason: str) -> None:
        now = time.monotonic()
        if now - self._logged.get(f"{message} {reason}", -LOG_SECONDS) >= LOG_SECONDS:
            if len(self._logged) > MAX_BLOBS:
                self._logged.clear()
            self._logged[f"{message} {reason}"] = now
            _log.warning(message, extra={"reason": reason})
