"""Changes of the models in a store: publish, promote, delete, clean up.

One conditional write of a model's pointer is one change of the model. There are no locks, nothing is reserved, and
nothing has to be completed after a crash. To publish a version:

 1. Read the pointer, with its tag.
 2. If its last publication was for an upload, make sure that the marker of that upload names it.
 3. Read the marker of this upload. If it names a version, that version is the result.
 4. Compare the current version with the expected one.
 5. Write the file under a number above `last`, if there is no blob there. Otherwise, take the next number.
 6. Replace the pointer by one with this version, current if asked, if it still has the tag. Otherwise, start again.

Why this is right, however long a publisher pauses between two steps, and wherever it is killed:

- A version exists if and only if its number is in the pointer. Step 6 is the only one that adds a number, and each
  pointer has content of its own, so step 6 succeeds only if nothing has changed since step 1. So no promotion is
  overwritten unseen, and no version is built on a parent that is not current.
- An upload is published once. The publication before the last one has its marker: step 2 of the last one wrote it
  before its step 6. Step 2 of this one writes that of the last one. So step 3 sees each publication before step 1, and
  step 6 fails if there was one since. Markers name ever higher numbers, by conditional writes, so that a publisher
  that wakes up in step 2 does not put back an older one. They are never removed, for the same reason.
- The response to step 6 may be lost, and the write repeated after another one. It then fails although it succeeded.
  But files are unique, and while a version exists, nobody else can write its file. So if the pointer has the number
  under which this publisher wrote its file, the version is its own. If the pointer does not have it, and the marker
  names it, the upload was published under this number, by this or another publisher, and the version has been deleted
  since. It is not published again.
- `last` never decreases, and new numbers are above it. So a number up to `last` that is not in the pointer is dead: it
  will never be a version. Only blobs of dead numbers are deleted. A file that a publisher leaves above `last` becomes
  dead once a version has a higher number; `sweep` raises `last` above those that are older than ORPHAN_SECONDS.
- The first pointer of a model has no version. It is written before any file, and only if there is none. So files
  without a pointer are versions whose pointer was lost. They are left alone, and nothing is published before it is
  restored.

Publishers that compete may leave gaps in the numbers. No path that a request or a training waits for lists
blobs, but for the first publication of a model, which looks at LISTED_FIRST of them.
"""

import contextlib
import random
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Literal

import msgspec

from app.errors import Conflict, InvalidInput, ModelFileInvalid, StoreUnavailable, VersionNotFound
from app.failpoints import failpoint
from app.registry.base import ParentChanged
from app.registry.bucket.keys import MODELS, VERSION_FILE, marker_key, pointer_key, version_key
from app.registry.bucket.pointer import Latest, Pointer
from app.registry.bucket.pointer_reader import missing_pointer
from app.registry.bucket.reader import BucketReader
from app.registry.model_card import ModelCard
from app.registry.names import MODEL_NAME, MODEL_NAME_RULE, no_model, no_version, version_deleted
from app.registry.version_cache import CACHED_BYTES
from app.registry.version_file import Version, encode
from app.regression.linear_model import LinearModel
from app.regression.sufficient_statistics import SufficientStatistics
from app.storage.memory_budget import MemoryBudget
from app.storage.store import BlobChanged, BlobNotFound, Store

_JITTER = random.Random()  # noqa: S311 - of pauses. Not the global one, which other code may seed.
ATTEMPTS = 100  # Attempts at a change, if another process changes the model during each of them.
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.002, 0.5  # Longest pause after the first attempt, and after any.
ORPHAN_SECONDS = 86400.0  # Age of a file without a version above which its publisher is taken for dead.
SWEEP_SECONDS = 600.0  # Interval between two sweeps, which list all blobs.
LISTED_FIRST = 3  # Blobs of a model without a pointer that are looked at. Versions come first in the list.
PLAIN_ATTEMPTS = 10  # Numbers tried one by one before the steps grow.
DELETED_AT_ONCE = 20  # Most files that the deletion of a model waits for. `sweep` removes the others.


class _Marker(msgspec.Struct):
    number: int


class BucketPublisher(BucketReader):
    """Reads and changes the models in a store."""

    _swept = -SWEEP_SECONDS  # by the monotonic clock

    def __init__(
        self,
        store: Store,
        *,
        cached_bytes: int = CACHED_BYTES,
        pinned: str | None = None,
        budget: MemoryBudget | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        """As for BucketReader."""
        super().__init__(store, cached_bytes=cached_bytes, pinned=pinned, budget=budget, cache_dir=cache_dir)
        # Since when this process has seen the files without a version, by model and by key and tag.
        self._orphans: dict[str, dict[tuple[str, str], float]] = {}

    def find(self, model: str, upload: str) -> Version | None:
        """Return the version that was published for this upload, or None.

        Raises Conflict if it was deleted; ModelFileInvalid if it is damaged; Unavailable.
        """
        if not re.fullmatch(MODEL_NAME, model):
            return None
        pointer, etag = self._read_pointer(model)
        if etag is None:
            return None
        latest = pointer.latest
        number = latest.number if latest and latest.upload == upload else self._marked(model, upload)[0]
        return self._published(model, pointer, number, upload)

    def publish(
        self,
        card: ModelCard,
        model: LinearModel,
        folds: Mapping[int, SufficientStatistics] | None = None,
        *,
        promote: bool = False,
        expected: int | Literal["any"] | None = "any",
    ) -> Version:
        """Publish a version under a free number, which replaces the card's, and promote it if asked, in one step.

        If `expected` is a number, that version must be current, and none if it is None. A version that replaces all
        rows and has no parent gets the current version as its parent. An upload is published once: a second call
        returns its version.

        Raises ParentChanged if another version is current; Conflict if the upload's version was deleted;
        ModelFileInvalid if it is damaged, or if the model has versions and no pointer; StoreUnavailable if the store
        cannot be written, or others keep changing the model. The version may be published then, and `find` or a
        second call returns it.
        """
        if not re.fullmatch(MODEL_NAME, card.model):
            raise InvalidInput.at("/model", MODEL_NAME_RULE)
        card = replace(card, promoted=promote)
        draft, pointer = _Draft(), Pointer()
        try:
            for _ in _attempts():
                pointer, etag = self._read_pointer(card.model)
                if published := self._published_before(card, model, draft.card, pointer):
                    return published
                if expected not in ("any", pointer.current):
                    raise ParentChanged
                if etag is None:
                    self._begin(card.model)
                    continue
                numbered = draft.numbered(card, pointer)
                if numbered != draft.card and not self._write(draft, numbered, model, folds):
                    continue
                failpoint("prepared")
                changed = pointer.with_version(numbered.version, card.upload, promote=promote)
                if self._replace(card.model, changed, etag):
                    pointer = changed
                    failpoint("promoted")
                    return Version(numbered, model)
        finally:
            for number in filter(pointer.is_dead, draft.numbers):
                self._remove(card.model, number)
        raise _contended(card.model)

    def promote(self, model: str, number: int, check: Callable[[], None] = lambda: None) -> None:
        """Make a version current, for this process at once, and for others within a second.

        `check` is called first, and may raise. If somebody else changes the model meanwhile, it is called again. Raises
        ModelNotFound, VersionNotFound, ModelFileInvalid if the file is damaged, Unavailable.
        """
        intact = False
        for _ in _attempts():
            pointer, etag = self._existing(model)
            _require(model, number, pointer)
            check()
            if not intact:
                self._read(model, number)
                intact = True
            if pointer.current == number or self._replace(model, pointer.with_current(number), etag):
                failpoint("promoted")
                return
        raise _contended(model)

    def delete(self, model: str, number: int) -> None:
        """Remove a version for good. Its number is not used again.

        Raises ModelNotFound, VersionNotFound; Conflict for the current version and the one served; Unavailable.
        """
        for _ in _attempts():
            pointer, etag = self._existing(model)
            _require(model, number, pointer)
            if pointer.current == number:
                raise Conflict(f'Version {number} is the current version of "{model}". Promote another one first.')
            if self.served_number(model) == number:
                raise Conflict(f"Version {number} is served in place of the current one. Promote another one first.")
            if self._replace(model, pointer.without_version(number), etag):
                failpoint("deleted")
                self._remove(model, number)
                self._cache.drop((model, number))
                return
        raise _contended(model)

    def delete_model(self, model: str, check: Callable[[], None] = lambda: None) -> None:
        """Remove a model with all its versions. Their numbers are not used again.

        `check` is as for `promote`. Raises ModelNotFound, Unavailable.
        """
        for _ in _attempts():
            pointer, etag = self._existing(model)
            check()
            failpoint("deletion_prepared")
            if self._replace(model, pointer.without_versions(), etag):
                failpoint("deleted")
                numbers = tuple(pointer.numbers())
                for number in numbers[-DELETED_AT_ONCE:]:
                    self._remove(model, number)
                for number in numbers:
                    self._cache.drop((model, number))
                return
        raise _contended(model)

    def sweep(self) -> None:
        """Remove the files of deleted versions and of killed publishers, at most once in SWEEP_SECONDS.

        A file that is not in the pointer may also be a version whose pointer was lost or replaced by an older one. So
        it is removed only after this process has seen it for ORPHAN_SECONDS, unless its version was deleted.

        Raises Unavailable.
        """
        if time.monotonic() < self._swept + SWEEP_SECONDS:
            return
        self._swept = time.monotonic()
        for model in self._store.list_names(MODELS):
            if re.fullmatch(MODEL_NAME, model):
                with contextlib.suppress(ModelFileInvalid):
                    self._sweep(model)

    def _sweep(self, model: str) -> None:
        seen, self._orphans[model] = self._orphans.get(model, {}), {}
        pointer, etag = self._read_pointer(model)
        if etag is None:  # all files may be versions
            return
        now, before = time.monotonic(), datetime.now(UTC) - timedelta(seconds=ORPHAN_SECONDS)
        orphans = []
        for blob in self._store.list_blobs(f"{MODELS}{model}/"):
            match = VERSION_FILE.fullmatch(blob.key.rpartition("/")[2])
            if match is None or pointer.contains(number := int(match[1])):
                continue
            if pointer.was_deleted(number):
                self._store.delete(blob.key)
                continue
            since = self._orphans[model][blob.key, blob.etag] = seen.get((blob.key, blob.etag), now)
            if since <= now - ORPHAN_SECONDS and blob.modified < before:
                orphans.append(number)
        last = max(orphans, default=0)
        if last > pointer.last and not self._replace(model, pointer.with_last(last), etag):
            return
        for number in orphans:
            self._store.delete(version_key(model, number))

    def _begin(self, model: str) -> None:
        """Write the first pointer of a model, without versions, unless somebody else does.

        It is written before the first version, so if there are versions and no pointer, the pointer was lost. Then
        raise ModelFileInvalid, because all versions would be lost with a new one.
        """
        blobs = self._store.list_blobs(f"{MODELS}{model}/")
        names = (blob.key.rpartition("/")[2] for blob in islice(blobs, LISTED_FIRST))
        if not any(map(VERSION_FILE.fullmatch, names)):
            self._replace(model, Pointer().with_last(0), None)
        elif self._read_pointer(model)[1] is None:
            raise ModelFileInvalid(missing_pointer(self._store.url, model))

    def _published_before(
        self, card: ModelCard, model: LinearModel, written: ModelCard | None, pointer: Pointer
    ) -> Version | None:
        """Return the version that the last attempt or another publisher has published, or None.

        `written` is the card in the file of the last attempt. Writes the marker of the last publication first.
        """
        if written and pointer.contains(written.version):  # the response to the last attempt was lost
            return Version(written, model)
        if pointer.latest:
            self._mark(card.model, pointer.latest)
        if card.upload is None:
            return None
        number, _ = self._marked(card.model, card.upload)
        if written and number == written.version:  # the upload was published, and the version deleted since
            return Version(written, model)
        return self._published(card.model, pointer, number, card.upload)

    def _published(self, model: str, pointer: Pointer, number: int, upload: str) -> Version | None:
        """Return the version with this number if it is that of the upload.

        Raises Conflict if it was deleted, and ModelFileInvalid if it is damaged: it must not be published again.
        """
        if 0 < number <= pointer.last:
            if not pointer.contains(number):
                raise version_deleted(model, number)
            try:
                version = self._read(model, number)
            except VersionNotFound:
                raise version_deleted(model, number) from None
            return version if version.card.upload == upload else None
        return None

    def _mark(self, model: str, latest: Latest) -> None:
        """Write the marker of a publication, unless there is one of the same or a later publication."""
        key, content = marker_key(model, latest.upload), msgspec.json.encode(_Marker(latest.number))
        for _ in _attempts():
            with contextlib.suppress(BlobChanged):
                self._store.put_if_absent(key, content)
                return
            number, etag = self._marked(model, latest.upload)
            if number >= latest.number:
                return
            with contextlib.suppress(BlobChanged):
                self._store.put_if_match(key, content, etag)
                return
        raise _contended(model)

    def _marked(self, model: str, upload: str) -> tuple[int, str]:
        """Return the number in the marker of this upload, and its tag; 0 if there is none."""
        try:
            blob = self._store.get(marker_key(model, upload))
            return msgspec.json.decode(blob.content, type=_Marker).number, blob.etag
        except BlobNotFound:
            return 0, ""
        except msgspec.MsgspecError:  # a foreign blob, which is replaced
            return 0, blob.etag

    def _write(
        self, draft: "_Draft", card: ModelCard, model: LinearModel, folds: Mapping[int, SufficientStatistics] | None
    ) -> bool:
        """Write the file of a version that is not published yet. Return False if there is one with its number."""
        content = encode(card, model, folds, nonce=draft.nonce)
        draft.numbers.append(card.version)
        try:
            self._store.put_if_absent(version_key(card.model, card.version), content)
        except BlobChanged:  # another publisher's, which was killed or publishes it now
            draft.numbers.pop()
            draft.taken.append(card.version)
            return False
        draft.card = card
        return True

    def _replace(self, model: str, pointer: Pointer, etag: str | None) -> bool:
        """Replace the pointer that has this tag, or write the first one. Return False if there is another one."""
        key, content = pointer_key(model), pointer.encode()
        try:
            if etag is None:
                etag = self._store.put_if_absent(key, content)
            else:
                etag = self._store.put_if_match(key, content, etag)
        except BlobChanged:
            return False
        self._note(model, pointer, etag)
        return True

    def _existing(self, model: str) -> tuple[Pointer, str | None]:
        """Read the pointer of a model that has versions. Raises ModelNotFound."""
        if re.fullmatch(MODEL_NAME, model):
            pointer, etag = self._read_pointer(model)
            if pointer.versions:
                return pointer, etag
        raise no_model(model)

    def _remove(self, model: str, number: int) -> None:
        """Delete the file of a dead number. If that fails, `sweep` will do it."""
        with contextlib.suppress(StoreUnavailable):
            self._store.delete(version_key(model, number))


@dataclass(eq=False)
class _Draft:
    """The file of a publication, under the numbers that were tried for it."""

    nonce: str = field(default_factory=lambda: secrets.token_hex(8))  # makes the file unique
    card: ModelCard | None = None  # of the file that was written last
    numbers: list[int] = field(default_factory=list)  # of the files that were written
    taken: list[int] = field(default_factory=list)  # numbers of other publications' files

    def numbered(self, card: ModelCard, pointer: Pointer) -> ModelCard:
        """Return the card with a free number, and with the current version as its parent if it has to name one."""
        if card.mode == "replace" and card.parent is None:
            card = replace(card, parent=pointer.current)
        if self.card and self.card.version > pointer.last and replace(card, version=self.card.version) == self.card:
            return self.card
        last = max(pointer.last, *self.numbers, *self.taken) if self.numbers or self.taken else pointer.last
        # After a pointer was restored from a backup, many numbers are taken.
        return replace(card, version=last + 2 ** max(0, len(self.taken) - PLAIN_ATTEMPTS))


def _require(model: str, number: int, pointer: Pointer) -> None:
    if not pointer.contains(number):
        raise no_version(model, number)


def _attempts() -> Iterator[None]:
    """Yield ATTEMPTS times, with random pauses that grow."""
    pause = FIRST_PAUSE_SECONDS
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(_JITTER.uniform(0, pause))
            pause = min(2 * pause, MAX_PAUSE_SECONDS)
        yield


def _contended(model: str) -> StoreUnavailable:
    return StoreUnavailable(f'Other processes keep changing model "{model}". Try again later.')
