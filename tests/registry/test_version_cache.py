import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from app.errors import WorkerBusy
from app.registry.folder import reader as module
from app.registry.folder.publisher import FolderPublisher
from app.registry.folder.reader import FolderReader
from app.registry.model_card import ModelCard
from app.registry.version_cache import ENTRY_BYTES, FILE_TIMES, CachedVersion, VersionCache, memory_of
from app.registry.version_file import Version, read
from app.storage.memory_budget import REQUESTS_SHARE, MemoryBudget, share_of

SHIPPED = read(Path(__file__).parents[2] / "models" / "crop-yield" / "000001.safetensors")
UNIT = ENTRY_BYTES + FILE_TIMES * 1000  # Memory of an entry of size 1.
TOTAL = 64 << 20


def of(size: int) -> CachedVersion:
    """Return an entry that takes `size` units of memory."""
    length = (size * UNIT - ENTRY_BYTES) // FILE_TIMES
    return CachedVersion(Version(SHIPPED.card, replace(SHIPPED.model), length))


def cache_of(size: int, pinned: str | None = None, budget: MemoryBudget | None = None) -> VersionCache:
    return VersionCache(size * UNIT, (pinned, 0) if pinned else None, budget)


def put(cache: VersionCache, **sizes: int) -> None:
    for model, size in sizes.items():
        cache.put((model, 0), of(size))


def cached(cache: VersionCache) -> set[str]:
    return {model for model in "abcdef" if cache.get((model, 0)) is not None}


def reserved(budget: MemoryBudget) -> bool:
    """Return True if anything is reserved."""
    everything = share_of(TOTAL, REQUESTS_SHARE)
    if not budget.try_reserve(everything, everything):
        return True
    budget.free(everything)
    return False


def publish(registry: FolderPublisher, model: str, *, promote: bool = True) -> None:
    card: ModelCard = replace(SHIPPED.card, model=model, upload=None)
    number = registry.publish(card, SHIPPED.model).card.version
    if promote:
        registry.promote(model, number)


def test_the_versions_used_last_are_kept_as_far_as_their_bytes_go() -> None:
    cache = cache_of(100)
    put(cache, a=40, b=40, c=20)
    assert cached(cache) == {"a", "b", "c"}
    put(cache, d=30)
    assert cached(cache) == {"b", "c", "d"}
    cache.get(("b", 0))
    put(cache, e=1, f=40)
    assert cached(cache) == {"b", "e", "f"}


def test_a_version_larger_than_the_cache_is_not_cached_and_evicts_no_other() -> None:
    cache = cache_of(100)
    put(cache, a=40, b=500)
    assert cached(cache) == {"a"}


def test_a_version_that_does_not_fit_is_shared_while_it_is_in_use() -> None:
    cache = cache_of(100)
    entry = of(500)
    model, number = entry.version.card.model, entry.version.card.version
    cache.put((model, number), entry)
    assert cache.get((model, number)) is None
    assert cache.shared(model, number) is entry.version
    del entry
    assert cache.shared(model, number) is None


def test_a_dropped_version_makes_room() -> None:
    cache = cache_of(100)
    put(cache, a=40, b=40)
    assert cache.drop(("b", 0))
    assert not cache.drop(("b", 0))
    put(cache, c=60)
    assert cached(cache) == {"a", "c"}


def test_the_pinned_version_stays_whatever_is_added() -> None:
    cache = cache_of(100, pinned="a")
    put(cache, a=60, b=30)
    assert cached(cache) == {"a", "b"}
    for _ in range(3):
        put(cache, c=40, d=40)
        assert cached(cache) == {"a", "d"}
    put(cache, a=500)
    assert cached(cache) == {"a"}
    assert cache.drop(("a", 0))
    put(cache, b=100)
    assert cached(cache) == {"b"}


def test_an_entry_that_is_replaced_counts_once() -> None:
    cache = cache_of(100)
    for size in (90, 10, 60):
        put(cache, a=size)
    put(cache, b=40)
    assert cached(cache) == {"a", "b"}


def test_an_evicted_version_counts_in_the_budget_while_it_is_in_use() -> None:
    budget = MemoryBudget(TOTAL)
    cache = cache_of(100, budget=budget)
    entry = of(60)
    cache.put(("a", 0), entry)
    assert not reserved(budget)
    put(cache, b=60)
    assert cached(cache) == {"b"}
    assert reserved(budget)
    del entry
    assert not reserved(budget)


def test_a_replaced_and_a_dropped_version_count_while_they_are_in_use() -> None:
    budget = MemoryBudget(TOTAL)
    for pinned in (None, "a"):
        cache = cache_of(100, pinned, budget)
        first, second = of(1), of(1)
        cache.put(("a", 0), first)
        cache.put(("a", 0), replace(first, link="000001.safetensors"))
        assert not reserved(budget)
        cache.put(("a", 0), second)
        assert reserved(budget)
        del first
        assert not reserved(budget)
        cache.drop(("a", 0))
        assert reserved(budget)
        del second
        assert not reserved(budget)


def test_no_other_version_is_read_while_those_in_use_take_the_memory(tmp_path: Path) -> None:
    registry = FolderPublisher(tmp_path)
    for model in ("one", "other", "default"):
        publish(registry, model)
    budget = MemoryBudget(3 * memory_of(SHIPPED.size))
    reader = FolderReader(tmp_path, cached_bytes=1, pinned="default", budget=budget)

    in_use = [reader.version("one", 1)]
    for _ in range(3):
        assert reader.version("one", 1) is reader.current("one") is in_use[0]
    in_use.append(reader.current("other"))
    publish(registry, "one")
    with pytest.raises(WorkerBusy, match="Other versions in use"):
        reader.current("one")
    assert reader.current("default").card.model == "default"
    in_use.clear()
    assert reader.current("one").card.version == 2


def test_threads_that_want_the_same_version_read_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(FolderPublisher(tmp_path), "line")
    reader = FolderReader(tmp_path)
    all_want_it = threading.Barrier(8)
    reads = []

    def read_it(path: Path) -> Version:
        reads.append(path)
        return read(path)

    monkeypatch.setattr(module, "read", read_it)

    def want_it(_: int) -> Version:
        all_want_it.wait()
        return reader.version("line", 1)

    with ThreadPoolExecutor(8) as pool:
        versions = set(pool.map(want_it, range(8)))
    assert len(versions) == len(reads) == 1


def test_a_cached_version_is_returned_while_another_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = FolderPublisher(tmp_path)
    for _ in range(2):
        publish(registry, "line")
    reader = FolderReader(tmp_path)
    reader.version("line", 1)
    reading, read_on = threading.Event(), threading.Event()

    def slowly(path: Path) -> Version:
        reading.set()
        read_on.wait()
        return read(path)

    with ThreadPoolExecutor(1) as pool, monkeypatch.context() as patched:
        patched.setattr(module, "read", slowly)
        slow = pool.submit(reader.version, "line", 2)
        reading.wait()
        patched.setattr(module, "read", read)
        assert reader.get_cached("line", 1) is not None
        assert reader.current("line").card.version == 2  # as a promotion that the event loop sees
        read_on.set()
        assert slow.result().card.version == 2


@pytest.mark.parametrize("count", [1, 50])
def test_current_versions_of_many_models_take_no_more_than_their_room(tmp_path: Path, count: int) -> None:
    registry = FolderPublisher(tmp_path, cached_bytes=int(4.5 * memory_of(SHIPPED.size)), pinned="model-0")
    for index in range(count + 1):
        publish(registry, f"model-{index}")
    for index in range(count + 1):
        assert registry.current(f"model-{index}").card.model == f"model-{index}"
    in_memory = [index for index in range(count + 1) if registry.get_cached(f"model-{index}") is not None]
    assert in_memory == [0, *range(max(1, count - 2), count + 1)]


def test_a_promotion_is_seen_at_once_after_its_model_was_evicted(tmp_path: Path) -> None:
    registry = FolderPublisher(tmp_path, cached_bytes=1)
    for model in ("one", "other"):
        publish(registry, model)
    for version in (2, 4):
        assert registry.current("other").card.version == 1
        assert registry.get_cached("one") is None
        publish(registry, "one")
        assert registry.current("one").card.version == version
        publish(registry, "one", promote=False)
        assert registry.current("one").card.version == version
