"""Splits: the shares of a model's requests that several versions answer, and a shadow version.

An operator tries a version on a part of the traffic before it is promoted.

A split names the version that was current when it was set, and applies only while that version is current. So a
promotion by any process ends it, also if that process is killed.
"""

import hashlib
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import msgspec

from app.errors import Conflict, StoreUnavailable
from app.registry.names import MODEL_NAME, no_model
from app.storage.folder_store import FolderStore
from app.storage.store import BlobChanged, BlobNotFound, Store

BUCKETS = 100  # Buckets of clients. A share of 1 % is one of them.
MAX_SPLITS = 1000  # Models with a split in the store.
ATTEMPTS = 5  # Attempts to change the splits while other processes change them too.
POLL_SECONDS = 0.5  # Interval between two readings of a bucket.
KEY = "splits/splits.json"

_log = logging.getLogger(__name__)


class Split(msgspec.Struct, frozen=True):
    """The versions that answer while `current` is the current one, with their shares in percent."""

    current: int
    shares: dict[int, int]
    shadow: int | None
    set_at: str
    identity: str  # sorts by the time at which the split was set

    def __post_init__(self) -> None:
        if self.shares and (min(self.shares.values()) < 0 or sum(self.shares.values()) != BUCKETS):
            raise ValueError(f"shares are not percentages that sum to {BUCKETS}")

    @classmethod
    def new(cls, current: int, shares: Mapping[int, int], shadow: int | None) -> "Split":
        now = time.time_ns()
        set_at = datetime.fromtimestamp(now / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        identity = f"{now:020d}-{secrets.token_hex(4)}"
        return cls(current, dict(sorted(shares.items())), shadow, set_at, identity)

    @property
    def versions(self) -> set[int]:
        """The versions in the split, including the shadow."""
        return {*self.shares} if self.shadow is None else {*self.shares, self.shadow}

    def version_of(self, bucket: int, least: int | None = None) -> int | None:
        """Return the version that answers a client in this bucket; None if no share has a version from `least` on.

        Versions take the buckets in the order of their numbers. Those from `least` on share all buckets.
        """
        shares = [
            (number, share) for number, share in self.shares.items() if share and (least is None or number >= least)
        ]
        end, total = 0, sum(share for _, share in shares)
        for number, share in shares:
            end += share
            if bucket * total < end * BUCKETS:
                return number
        return None


def bucket_of(model: str, client: str) -> int:
    """Return the bucket of a client: the first 8 bytes of a SHA-256 modulo BUCKETS, the same in every process."""
    digest = hashlib.sha256(f"{model}\0{client}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % BUCKETS


_SPLITS = msgspec.json.Decoder(dict[str, Split])
_Known = tuple[dict[str, Split], str | None]  # the splits by model, and the tag of their blob; None if there is none


class Splits:
    """The splits of all models, in one blob. Processes on several machines may share the store. Thread-safe."""

    def __init__(self, store: Store) -> None:
        """Look at a folder on each call. A bucket is polled by a thread from `start` on."""
        self._store = store
        self._path = f"{store.folder}/{KEY}" if isinstance(store, FolderStore) else None
        self._known: _Known | None = None
        self._is_damaged = False  # True if the blob that was read last cannot be decoded
        self._polled = False
        self._status: tuple[int, int, int] | None = None  # of the file that was read last
        self._stopping = threading.Event()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the thread that polls a bucket. A folder needs none."""
        if self._path is None:
            threading.Thread(target=self._poll, name="poll-splits", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def get_cached(self, model: str) -> Split | None:
        """Return the split of a model that exists, without waiting for a bucket. It may be over, see `Split.current`.

        Raises LookupError if a bucket was not read yet.
        """
        if self._path is not None:
            # Without a split, this costs one system call and no exception.
            if not os.access(self._path, os.F_OK):
                return None
            self._look_at_file(self._path)
        elif not self._polled:
            raise LookupError
        return None if self._known is None else self._known[0].get(model)

    def get(self, model: str) -> Split | None:
        """Return the split of a model, which may be over, after a look at the store. Raises StoreUnavailable."""
        return self._read()[0].get(model)

    def set(self, model: str, split: Split) -> None:
        """Set the split of a model, in place of the one before. Raises Conflict, StoreUnavailable."""
        if not re.fullmatch(MODEL_NAME, model):
            raise no_model(model)

        def change(splits: dict[str, Split]) -> None:
            splits[model] = split
            if len(splits) > MAX_SPLITS:
                raise Conflict(f"{MAX_SPLITS} models have a traffic split, which is the limit. Delete one first.")

        self._change(change)

    def remove(self, model: str) -> None:
        """Remove the split of a model, if there is one. Raises Conflict, StoreUnavailable."""
        self._change(lambda splits: splits.pop(model, None))

    def before_promotion(self, model: str, number: int) -> None:
        """Remove a split that would apply once version `number` is current. A promotion ends it.

        It was set while that version was current. A split of any other version is over by itself.
        Raises Conflict, StoreUnavailable.
        """
        split = self.get(model)
        if split is not None and split.current == number:
            self.remove(model)

    def _change(self, change: Callable[[dict[str, Split]], object]) -> None:
        for _ in range(ATTEMPTS):
            before, etag = self._read()
            if self._is_damaged:
                raise Conflict(f"The file of the traffic splits, {KEY}, is damaged. Restore or remove it first.")
            splits = dict(before)
            change(splits)
            if splits == before:
                return
            content = msgspec.json.encode(splits)
            try:
                if etag is None:
                    etag = self._store.put_if_absent(KEY, content)
                else:
                    etag = self._store.put_if_match(KEY, content, etag)
            except BlobChanged:
                continue
            with self._lock:
                self._known = splits, etag
            return
        raise Conflict("The traffic splits are changed by others at the same time. Try again.")

    def _read(self) -> _Known:
        """Return the splits in the store now. Raises StoreUnavailable."""
        with self._lock:
            known = self._known
            try:
                if known is not None and known[1] is not None:
                    blob = self._store.get_if_changed(KEY, known[1])
                    if blob is None:
                        return known
                else:
                    blob = self._store.get(KEY)
                known = self._decode(blob.content), blob.etag
            except BlobNotFound:
                known = {}, None
                self._is_damaged = False
            self._known = known
            return known

    def _decode(self, content: bytes) -> dict[str, Split]:
        """Return the splits in a blob. If it was altered, no split applies until somebody restores or removes it."""
        try:
            splits = _SPLITS.decode(content)
        except msgspec.DecodeError as error:
            self._is_damaged = True
            _log.warning("traffic splits ignored", extra={"file": KEY, "reason": str(error)})
            return {}
        self._is_damaged = False
        return splits

    def _look_at_file(self, path: str) -> None:
        """Read the file if it has changed."""
        try:
            found = os.stat(path)  # noqa: PTH116 - less than half of the time of Path's
        except OSError:
            return
        status = found.st_mtime_ns, found.st_size, found.st_ino
        if status != self._status and self._look():
            self._status = status

    def _look(self) -> bool:
        """Read the store. If it cannot be read, the splits known before stay, and the result is False."""
        try:
            self._read()
        except StoreUnavailable:
            return False
        return True

    def _poll(self) -> None:
        while True:
            self._look()
            self._polled = True
            if self._stopping.wait(POLL_SECONDS):
                return
