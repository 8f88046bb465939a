"""Publishers, promoters and deleters of one model in a store, in any order of their calls of the store.

Each of them is a thread that waits for its turn before every call. The call may fail, its answer may be lost, it may
take effect much later, and the process may be killed before or after it.
"""

import contextlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from line import CARD
from memory_store import MemoryStore
from models_folder import line

from app.errors import Conflict, LinserveError, ModelFileInvalid, StoreUnavailable, Unavailable
from app.registry.base import ParentChanged
from app.registry.bucket import publisher as module
from app.registry.bucket.keys import VERSION_FILE, marker_key, pointer_key, version_key
from app.registry.bucket.pointer import Pointer
from app.registry.bucket.publisher import BucketPublisher
from app.registry.migrations import decode_card
from app.registry.model_card import SCHEMA, ModelCard
from app.registry.version_file import encode
from app.storage.store import BlobChanged

WRITES = {"put_if_absent", "put_if_match", "delete"}
MODEL = line(1.0)

Fate = Literal["done", "failed", "unknown", "late", "repeated", "killed before", "killed after"]
FATES: tuple[Fate, ...] = ("done", "failed", "unknown", "late", "repeated", "killed before", "killed after")


class Killed(BaseException):
    """The process has ended."""


@dataclass(eq=False)
class Actor:
    """A process: what it does, and whether it is its turn."""

    work: "Callable[[Actor], None]"
    turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    fate: Fate = "done"
    is_killed: bool = False
    has_ended: bool = False
    fault: BaseException | None = None


class Shared(MemoryStore):
    """The store, with the history of the pointer."""

    def __init__(self) -> None:
        super().__init__()
        self.pointers = [Pointer()]
        self.files: dict[int, bytes] = {}  # of all versions that there ever were

    def put(self, key: str, content: bytes) -> str:
        if key == pointer_key("line") and self.blobs.get(key) != content:
            self.pointers.append(Pointer.decode(content, key))
            for number in set(self.pointers[-1].numbers()) - set(self.pointers[-2].numbers()):
                self.files[number] = self.blobs[version_key("line", number)]
        return super().put(key, content)


class World:
    """Gives the turns. Only one thread runs at any time."""

    def __init__(self) -> None:
        self.store = Shared()
        self.back = threading.Semaphore(0)
        self.late: list[Callable[[], object]] = []

    def run(self, works: list[Callable[[Actor], None]], turns: list[tuple[int, int, Fate]]) -> None:
        """Run all to their ends, in the order of `turns`, and after those in turn."""
        actors = [Actor(work) for work in works]
        for actor in actors:
            threading.Thread(target=self._run, args=(actor,), daemon=True).start()
        planned = (
            (actor, "done" if call < calls else fate) for actor, calls, fate in turns for call in range(1, calls + 1)
        )
        index = 0
        while alive := [actor for actor in actors if not actor.has_ended]:
            choice, fate = next(planned, (index, "done"))
            index += 1
            if choice == 6 and self.late:
                self._land()
                continue
            actor = alive[choice % len(alive)]
            actor.fate = fate
            actor.turn.release()
            self.back.acquire()
        while self.late:
            self._land()
        for actor in actors:
            if actor.fault is not None:
                raise actor.fault

    def _land(self) -> None:
        with contextlib.suppress(BlobChanged):
            self.late.pop()()

    def _run(self, actor: Actor) -> None:
        try:
            actor.turn.acquire()
            actor.work(actor)
        except Killed:
            pass
        except BaseException as error:
            actor.fault = error
        actor.has_ended = True
        self.back.release()

    def registry(self, actor: Actor) -> BucketPublisher:
        found = BucketPublisher(View(self, actor))
        found._swept = float("-inf")
        return found


class View:
    """The store as one process sees it."""

    url = "memory://"

    def __init__(self, world: World, actor: Actor) -> None:
        self._world = world
        self._actor = actor

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            return self._call(name, lambda: getattr(self._world.store, name)(*args, **options))

        return call

    def _call(self, name: str, act: Callable[[], Any]) -> Any:
        actor, world = self._actor, self._world
        if actor.is_killed:
            raise Killed
        fate = self._next_turn()
        if name not in WRITES and fate in ("unknown", "late", "repeated"):
            fate = "failed" if fate != "repeated" else "done"
        if fate == "killed before":
            actor.is_killed = True
            raise Killed
        if fate == "failed":
            raise StoreUnavailable("memory:// does not answer.")
        if fate == "late":
            world.late.append(act)
            raise StoreUnavailable("memory:// does not answer.")
        if fate == "killed after":
            actor.is_killed = True
            act()
            raise Killed
        if fate == "unknown":
            act()
            raise StoreUnavailable("memory:// does not answer.")
        if fate == "repeated":  # the store's client repeats a call whose answer was lost
            with contextlib.suppress(BlobChanged):
                act()
            self._next_turn()
        return act()

    def _next_turn(self) -> Fate:
        self._world.back.release()
        self._actor.turn.acquire()
        return self._actor.fate


@dataclass(frozen=True)
class Publish:
    upload: str | None
    promote: bool
    expects: bool = False  # that what is current when it begins is current when it publishes


@dataclass(frozen=True)
class Train:
    """Publish an update of the current version, and begin again if another one is current."""

    upload: str


@dataclass(frozen=True)
class Change:
    method: Literal["promote", "delete", "delete_model", "sweep"]
    number: int = 1


Step = Publish | Train | Change
UPLOADS = st.sampled_from(["a", "b"])
STEPS = st.one_of(
    st.builds(Train, UPLOADS),
    st.builds(Publish, st.none() | UPLOADS, st.booleans(), st.booleans()),
    st.builds(Change, st.sampled_from(["promote", "promote", "delete", "delete_model", "sweep"]), st.integers(1, 4)),
)
# Who is next, for how many calls, and the fate of the last of them.
TURNS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(1, 9), st.just("done") | st.sampled_from(FATES)), min_size=10, max_size=30
)


@dataclass
class Records:
    """What the processes were told."""

    published: list[ModelCard] = field(default_factory=list)
    without_upload: list[int] = field(default_factory=list)
    promoted: list[tuple[int, int, int]] = field(default_factory=list)  # number, revisions before and after
    calls: int = 0

    def card(self, upload: str | None, **options: Any) -> ModelCard:
        """Return the card for one call of `publish`."""
        self.calls += 1
        return replace(CARD, job=f"call {self.calls}", upload=upload, **options)


def work_of(world: World, steps: list[Step], records: Records) -> Callable[[Actor], None]:
    def work(actor: Actor) -> None:
        registry = world.registry(actor)
        for step in steps:
            with contextlib.suppress(LinserveError, ParentChanged):
                _do(step, registry, world, records)

    return work


def _do(step: Step, registry: BucketPublisher, world: World, records: Records) -> None:
    before = len(world.store.pointers) - 1
    if isinstance(step, Train):
        while True:
            try:
                if found := registry.find("line", step.upload):
                    records.published.append(found.card)
                    return
                parent = registry.current_number("line")
                card = records.card(step.upload, mode="update", parent=parent)
                version = registry.publish(card, MODEL, promote=True, expected=parent)
            except (ParentChanged, Unavailable):
                continue
            records.published.append(version.card)
            return
    if isinstance(step, Publish):
        card = records.card(step.upload)
        expected: Any = registry.current_number("line") if step.expects else "any"
        version = registry.publish(card, MODEL, promote=step.promote, expected=expected)
        records.published.append(version.card)
        if step.upload is None:
            records.without_upload.append(version.card.version)
    elif step.method == "sweep":
        registry.sweep()
    elif step.method == "delete_model":
        registry.delete_model("line")
    else:
        getattr(registry, step.method)("line", step.number)
        if step.method == "promote":
            records.promoted.append((step.number, before, len(world.store.pointers)))


@pytest.fixture(autouse=True, scope="module")
def no_pauses() -> Any:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "FIRST_PAUSE_SECONDS", 0.0)
        patched.setattr(module, "ORPHAN_SECONDS", 0.0)
        yield


@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(st.lists(st.lists(STEPS, min_size=1, max_size=3), min_size=2, max_size=4), TURNS)
def test_no_order_of_calls_loses_repeats_or_damages_a_version(
    steps: list[list[Step]], turns: list[tuple[int, int, Fate]]
) -> None:
    world, records = World(), Records()
    for upload in ("first", "second"):
        published(world.store, upload, promote=True)
    world.run([work_of(world, own, records) for own in steps], turns)
    check_history(world.store, records)
    uploads = {step.upload for own in steps for step in own if isinstance(step, Publish | Train)}
    check_that_it_goes_on(world.store, {upload for upload in uploads if upload is not None})


def check_history(store: Shared, records: Records) -> None:
    cards: dict[int, ModelCard] = {}  # of all versions that there ever were
    for before, after in pairwise(store.pointers):
        old, new = set(before.numbers()), set(after.numbers())
        assert after.revision == before.revision + 1
        assert after.last >= before.last
        assert after.current is None or after.current in new
        for number in new - old:
            card = cards[number] = card_in(store.files[number])
            assert number == after.last > before.last
            assert new - old == {number}
            assert after.current == (number if card.promoted else before.current)
            assert card.upload is None or card.upload not in {cards[other].upload for other in cards if other != number}
            assert card.parent == before.current
    jobs = [card.job for card in cards.values() if card.job]
    assert len(set(jobs)) == len(jobs)  # no call published twice
    for number in store.pointers[-1].numbers():
        assert store.blobs[version_key("line", number)] == store.files[number]
    for card in records.published:
        # If two publish an upload and a third deletes it, both are told its number, and each with its own card.
        found = cards[card.version]
        assert found == card or (card.upload is not None and found.upload == card.upload)
    assert len(set(records.without_upload)) == len(records.without_upload)
    for number, first, last in records.promoted:
        assert number in {pointer.current for pointer in store.pointers[first : last + 1]}


def check_that_it_goes_on(store: Shared, uploads: set[str]) -> None:
    registry = BucketPublisher(store)
    for upload in uploads:
        try:
            found = registry.find("line", upload)
        except Conflict:  # its version was deleted
            with pytest.raises(Conflict):
                registry.publish(replace(CARD, upload=upload), MODEL)
            continue
        number = registry.publish(replace(CARD, upload=upload), MODEL).card.version
        assert found is None or number == found.card.version
        assert registry.publish(replace(CARD, upload=upload), MODEL).card.version == number
    numbers = list(store.pointers[-1].numbers())
    named = [registry.version("line", number).card.upload for number in numbers]
    assert len(set(filter(None, named))) == len(list(filter(None, named)))
    registry.sweep()
    left = {int(match[1]) for key in store.blobs if (match := VERSION_FILE.fullmatch(key.rpartition("/")[2]))}
    assert left == set(numbers)


def card_in(content: bytes) -> ModelCard:
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    return decode_card(metadata["card"], SCHEMA)


class Interrupted(MemoryStore):
    """A store that calls a function before the first call of a method with a key."""

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[tuple[str, str], Callable[[], object]] = {}

    def put_if_absent(self, key: str, content: bytes) -> str:
        self.before.pop(("put_if_absent", key), lambda: None)()
        return super().put_if_absent(key, content)

    def put_if_match(self, key: str, content: bytes, etag: str) -> str:
        self.before.pop(("put_if_match", key), lambda: None)()
        return super().put_if_match(key, content, etag)


def published(store: MemoryStore, upload: str | None, **options: Any) -> int:
    return BucketPublisher(store).publish(replace(CARD, upload=upload), MODEL, **options).card.version


def test_a_publisher_that_wakes_up_does_not_put_back_the_marker_of_an_earlier_publication() -> None:
    store = Interrupted()
    assert published(store, "a") == 1

    def meanwhile() -> None:
        published(store, "x")
        BucketPublisher(store).delete("line", 1)

    store.before["put_if_absent", marker_key("line", "a")] = meanwhile
    assert published(store, "b") == 3
    with pytest.raises(Conflict):
        published(store, "a")


@pytest.mark.parametrize(("upload", "is_deleted"), [(None, False), ("a", False), ("a", True)])
def test_a_publication_whose_answer_is_lost_while_others_go_on_is_not_repeated(
    upload: str | None, is_deleted: bool
) -> None:
    class Lost(Interrupted):
        def put_if_match(self, key: str, content: bytes, etag: str) -> str:
            if hook := self.before.pop(("put_if_match", key), None):
                super().put_if_match(key, content, etag)
                hook()
            return super().put_if_match(key, content, etag)

    store = Lost()
    published(store, "first", promote=True)

    def meanwhile() -> None:
        published(store, "x", promote=True, expected=2)
        if is_deleted:
            BucketPublisher(store).delete("line", 2)

    store.before["put_if_match", pointer_key("line")] = meanwhile
    assert published(store, upload, promote=True, expected=1) == 2
    assert BucketPublisher(store).versions("line") == ([1, 3] if is_deleted else [1, 2, 3])
    assert BucketPublisher(store).current_number("line") == 3


def test_an_upload_that_is_published_and_deleted_while_another_publisher_sleeps_is_not_published_again() -> None:
    store = Interrupted()

    def meanwhile() -> None:
        assert published(store, "a") == 1
        published(store, "b")
        BucketPublisher(store).delete("line", 1)

    store.before["put_if_absent", version_key("line", 1)] = meanwhile
    assert published(store, "a") == 1
    assert BucketPublisher(store).versions("line") == [2]
    assert version_key("line", 1) not in store.blobs


def test_a_publisher_that_is_overtaken_takes_a_higher_number_and_removes_its_file() -> None:
    store = Interrupted()
    published(store, "a", promote=True)
    store.before["put_if_match", pointer_key("line")] = lambda: published(store, "b")
    assert published(store, "c") == 4
    assert BucketPublisher(store).versions("line") == [1, 3, 4]
    assert version_key("line", 2) not in store.blobs


def test_a_version_is_published_again_if_its_parent_changes_while_its_file_is_written() -> None:
    store = Interrupted()
    published(store, "a", promote=True)
    published(store, "b")
    store.before["put_if_match", pointer_key("line")] = lambda: BucketPublisher(store).promote("line", 2)
    number = published(store, "c", promote=True)
    assert BucketPublisher(store).version("line", number).card.parent == 2


def test_a_number_whose_file_is_that_of_a_killed_publisher_is_not_used() -> None:
    store = MemoryStore()
    published(store, "a", promote=True)
    for number in range(2, 30):  # as many as when a pointer was restored from a backup
        store.put(version_key("line", number), b"another publisher's")
    number = published(store, "b", promote=True, expected=1)
    registry = BucketPublisher(store)
    assert registry.versions("line") == [1, number]
    assert registry.current("line").card.upload == "b"
    registry.sweep()
    assert version_key("line", 2) not in store.blobs


@pytest.mark.parametrize("restored", [None, "older"])
def test_files_whose_pointer_is_lost_or_older_are_kept_and_a_lost_pointer_is_not_replaced(
    monkeypatch: pytest.MonkeyPatch, restored: str | None
) -> None:
    monkeypatch.setattr(module, "ORPHAN_SECONDS", 86400.0)
    store = MemoryStore()
    published(store, "a", promote=True)
    older = store.blobs[pointer_key("line")]
    for upload in ("b", "c"):
        published(store, upload, promote=True)
    newest = store.blobs.pop(pointer_key("line"))
    registry = BucketPublisher(store)
    if restored:
        store.put(pointer_key("line"), older)
        assert published(store, "d", promote=True) == 4
    else:
        with pytest.raises(ModelFileInvalid, match=r"memory:///models/line/pointer is missing.*Restore it from a"):
            registry.publish(replace(CARD, upload="d"), MODEL, promote=True)
    for _ in range(2):
        registry._swept = float("-inf")
        registry.sweep()
    assert {version_key("line", number) for number in (1, 2, 3)} <= set(store.blobs)
    store.put(pointer_key("line"), newest)
    assert [BucketPublisher(store).version("line", number).card.upload for number in (1, 2, 3)] == ["a", "b", "c"]


def test_files_of_versions_that_were_deleted_are_swept_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ORPHAN_SECONDS", 86400.0)
    monkeypatch.setattr(module, "DELETED_AT_ONCE", 1)
    store = MemoryStore()
    for upload in "abc":
        published(store, upload)
    registry = BucketPublisher(store)
    registry.delete_model("line")
    assert version_key("line", 1) in store.blobs
    registry.sweep()
    assert not [key for key in store.blobs if key.endswith(".safetensors")]


def test_a_publisher_that_is_killed_before_the_first_version_is_followed_by_another() -> None:
    def kill() -> None:
        raise Killed

    store = Interrupted()
    store.before["put_if_match", pointer_key("line")] = kill
    with pytest.raises(Killed):
        published(store, "a")
    assert version_key("line", 1) in store.blobs
    registry = BucketPublisher(store)
    assert (registry.models(), registry.had("line")) == ([], False)
    assert published(store, "a", promote=True, expected=None) == 2


def test_a_model_that_others_change_all_the_time_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ATTEMPTS", 3)
    store = Interrupted()
    published(store, "a")

    def change() -> None:
        others = BucketPublisher(store)
        others.promote("line", 1)
        others.promote("line", 2)
        store.before["put_if_match", pointer_key("line")] = change

    published(store, "b")
    store.before["put_if_match", pointer_key("line")] = change
    with pytest.raises(Unavailable, match="keep changing model"):
        published(store, "c")


@pytest.mark.parametrize("versions", [3, 10_000])
def test_a_publication_costs_as_much_with_many_versions_as_with_few(versions: int) -> None:
    class Counted(MemoryStore):
        def __getattribute__(self, name: str) -> Any:
            if counting and not name.startswith(("_", "blobs", "url")):
                calls.append(name)
            return super().__getattribute__(name)

    counting, calls = False, list[str]()
    store = Counted()
    pointer = Pointer()
    for number in range(1, versions + 1):
        pointer = pointer.with_version(number, f"upload-{number}", promote=True)
    store.put(pointer_key("line"), pointer.encode())
    store.put(version_key("line", versions), encode(replace(CARD, version=versions), MODEL))
    assert len(store.blobs[pointer_key("line")]) < 200
    counting = True
    registry = BucketPublisher(store)
    assert registry.find("line", "new") is None
    assert registry.current("line").card.version == versions
    registry.publish(replace(CARD, upload="new"), MODEL, promote=True, expected=versions)
    counting = False
    assert registry.find("line", "new") is not None
    assert len(calls) < 20
    assert not [name for name in calls if name.startswith("list")]
