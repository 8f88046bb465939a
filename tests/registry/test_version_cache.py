import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from app.registry.model_card import ModelCard
from app.registry.publisher import ModelPublisher
from app.registry.version_cache import Cache, memory_of
from app.registry.version_file import Version, read

SHIPPED = read(Path(__file__).parents[2] / "models" / "crop-yield" / "000001.safetensors")


def size_of(version: Version) -> int:
    return version.size


def of(size: int) -> Version:
    return Version(SHIPPED.card, SHIPPED.model, size)


def keep(loaded: Cache[str, Version], **sizes: int) -> None:
    for key, size in sizes.items():
        loaded.get_or_read(key, lambda size=size: of(size))  # type: ignore[misc]


def publish(registry: ModelPublisher, model: str, *, promote: bool = True) -> None:
    card: ModelCard = replace(SHIPPED.card, model=model, upload=None)
    number = registry.publish(card, SHIPPED.model).card.version
    if promote:
        registry.promote(model, number)


def kept(loaded: Cache[str, Version]) -> set[str]:
    return {key for key in "abcdef" if loaded.get(key) is not None}


def test_the_versions_used_last_are_kept_as_far_as_their_bytes_go() -> None:
    loaded: Cache[str, Version] = Cache(100, size_of)
    keep(loaded, a=40, b=40, c=20)
    assert kept(loaded) == {"a", "b", "c"}
    keep(loaded, d=30)
    assert kept(loaded) == {"b", "c", "d"}
    loaded.get("b")
    keep(loaded, e=1, f=40)
    assert kept(loaded) == {"b", "e", "f"}


def test_a_version_larger_than_all_the_room_is_kept_alone() -> None:
    loaded: Cache[str, Version] = Cache(100, size_of)
    keep(loaded, a=40, b=500)
    assert kept(loaded) == {"b"}
    keep(loaded, c=40)
    assert kept(loaded) == {"c"}


def test_what_is_dropped_makes_room() -> None:
    loaded: Cache[str, Version] = Cache(100, size_of)
    keep(loaded, a=40, b=40)
    loaded.drop("b")
    loaded.drop("b")
    keep(loaded, c=60)
    assert kept(loaded) == {"a", "c"}


def test_threads_that_want_the_same_version_read_it_once() -> None:
    loaded: Cache[str, Version] = Cache(100, size_of)
    all_want_it = threading.Barrier(8)
    reads = []

    def read_it() -> Version:
        reads.append(1)
        return of(1)

    def want_it(_: int) -> Version:
        all_want_it.wait()
        return loaded.get_or_read("a", read_it)

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(want_it, range(8)))
    assert len(found) == len(reads) == 1


def test_the_kept_one_stays_whatever_is_asked_for() -> None:
    loaded: Cache[str, Version] = Cache(100, size_of, "a")
    keep(loaded, a=60, b=30)
    assert kept(loaded) == {"a", "b"}
    for _ in range(3):
        keep(loaded, c=90, d=90)
        assert kept(loaded) == {"a", "d"}


def test_an_entry_that_is_replaced_counts_once() -> None:
    loaded: Cache[str, Version] = Cache(100, size_of)
    for size in (90, 10, 60):
        loaded.put("a", of(size))
    keep(loaded, b=40)
    assert kept(loaded) == {"a", "b"}


def test_a_cached_version_is_had_while_another_one_is_read() -> None:
    loaded: Cache[str, Version] = Cache(100, size_of)
    keep(loaded, a=1)
    reading, read_on = threading.Event(), threading.Event()

    def slowly() -> Version:
        reading.set()
        read_on.wait()
        return of(1)

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(loaded.get_or_read, "b", slowly)
        reading.wait()
        assert loaded.get("a") is not None
        loaded.put("c", of(1))  # as a promotion that the event loop sees
        read_on.set()
        assert slow.result().size == 1


@pytest.mark.parametrize("count", [1, 50])
def test_current_versions_of_many_models_take_no_more_than_their_room(tmp_path: Path, count: int) -> None:
    registry = ModelPublisher(tmp_path, cached_bytes=int(4.5 * memory_of(SHIPPED)), kept="model-0")
    for index in range(count + 1):
        publish(registry, f"model-{index}")
    for index in range(count + 1):
        assert registry.current(f"model-{index}").card.model == f"model-{index}"
    in_memory = [index for index in range(count + 1) if registry.get_cached(f"model-{index}") is not None]
    assert in_memory == [0, *range(max(1, count - 2), count + 1)]


def test_a_promotion_is_seen_at_once_after_its_model_was_evicted(tmp_path: Path) -> None:
    registry = ModelPublisher(tmp_path, cached_bytes=1)
    for model in ("one", "other"):
        publish(registry, model)
    for version in (2, 4):
        assert registry.current("other").card.version == 1
        assert registry.get_cached("one") is None
        publish(registry, "one")
        assert registry.current("one").card.version == version
        publish(registry, "one", promote=False)
        assert registry.current("one").card.version == version
