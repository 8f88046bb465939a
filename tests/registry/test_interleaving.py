"""Publishers, promoters and deleters of one model in a store, in any order of their calls of the store.

Each of them is a thread that waits before every call until it is its turn. The call may fail, its answer may be lost, it
may take effect much later, and the process may be killed before or after it.
"""

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

from app.errors import LinserveError, StoreUnavailable, Unavailable
from app.registry.base import ParentChanged
from app.registry.bucket import publisher as module
from app.registry.bucket.keys import VERSION_FILE, pointer_key, version_key
from app.registry.bucket.pointer import Pointer
from app.registry.bucket.publisher import BucketPublisher
from app.registry.migrations import decode_card
from app.registry.model_card import SCHEMA, ModelCard
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

    def run(self, works: list[Callable[[Actor], None]], turns: list[tuple[int, Fate]]) -> list[Actor]:
        """Run all to their ends, in the order of `turns`, and after those in turn."""
        actors = [Actor(work) for work in works]
        for actor in actors:
            threading.Thread(target=self._run, args=(actor,), daemon=True).start()
        planned = iter(turns)
        index = 0
        while alive := [actor for actor in actors if not actor.has_ended]:
            choice, fate = next(planned, (index, "done"))
            index += 1
            if choice >= 6 and self.late:
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
        return actors

    def _land(self) -> None:
        try:
            self.late.pop()()
        except BlobChanged:
            pass

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
            try:
                act()
            except BlobChanged:
                pass
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
UPLOADS = st.sampled_from(["a", "b", "c"])
STEPS = st.one_of(
    st.builds(Train, UPLOADS),
    st.builds(Publish, st.none() | UPLOADS, st.booleans(), st.booleans()),
    st.builds(Change, st.sampled_from(["promote", "promote", "delete", "delete_model", "sweep"]), st.integers(1, 4)),
)
TURNS = st.lists(
    st.tuples(st.integers(0, 7), st.one_of(st.just("done"), st.just("done"), st.sampled_from(FATES))), max_size=80
)


@dataclass
class Records:
    """What the processes were told."""

    published: list[ModelCard] = field(default_factory=list)
    without_upload: list[int] = field(default_factory=list)
    promoted: list[tuple[int, int, int]] = field(default_factory=list)  # number, revisions before and after
    trained: list[str] = field(default_factory=list)


def work_of(world: World, steps: list[Step], records: Records) -> Callable[[Actor], None]:
    def work(actor: Actor) -> None:
        registry = world.registry(actor)
        for step in steps:
            try:
                _do(step, registry, world, records)
            except (LinserveError, ParentChanged):
                pass

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
                card = replace(CARD, mode="update", parent=parent, upload=step.upload)
                version = registry.publish(card, MODEL, promote=True, expected=parent)
            except (ParentChanged, Unavailable):
                continue
            records.published.append(version.card)
            records.trained.append(step.upload)
            return
    if isinstance(step, Publish):
        card = replace(CARD, upload=step.upload)
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
        yield


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(st.lists(STEPS, min_size=1, max_size=3), min_size=2, max_size=4), TURNS)
def test_no_order_of_calls_loses_repeats_or_damages_a_version(
    steps: list[list[Step]], turns: list[tuple[int, Fate]]
) -> None:
    world, records = World(), Records()
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
            assert card.upload is None or card.upload not in {cards[other].upload for other in old}
            assert card.parent == before.current
    for number in store.pointers[-1].numbers():
        assert store.blobs[version_key("line", number)] == store.files[number]
    for card in records.published:
        assert cards[card.version] == card
    assert len(set(records.without_upload)) == len(records.without_upload)
    for number, first, last in records.promoted:
        assert number in {pointer.current for pointer in store.pointers[first : last + 1]}


def check_that_it_goes_on(store: Shared, uploads: set[str]) -> None:
    registry = BucketPublisher(store)
    for upload in uploads:
        found = registry.find("line", upload)
        number = registry.publish(replace(CARD, upload=upload), MODEL).card.version
        assert found is None or number == found.card.version
        assert registry.publish(replace(CARD, upload=upload), MODEL).card.version == number
    numbers = registry.versions("line") if uploads else list(store.pointers[-1].numbers())
    named = [registry.version("line", number).card.upload for number in numbers]
    assert len(set(filter(None, named))) == len(list(filter(None, named)))
    registry.sweep()
    left = {int(match[1]) for key in store.blobs if (match := VERSION_FILE.fullmatch(key.rpartition("/")[2]))}
    assert left == set(numbers)


def card_in(content: bytes) -> ModelCard:
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    return decode_card(metadata["card"], SCHEMA)
