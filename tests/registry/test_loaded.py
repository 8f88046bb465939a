import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.registry.loaded import Loaded
from app.registry.version_file import Version, read

SHIPPED = read(Path(__file__).parents[2] / "models" / "crop-yield" / "000001.safetensors")


def of(size: int) -> Version:
    return Version(SHIPPED.card, SHIPPED.model, size)


def keep(loaded: Loaded, **sizes: int) -> None:
    for key, size in sizes.items():
        loaded.get_or_read(key, lambda size=size: of(size))  # type: ignore[misc]


def kept(loaded: Loaded) -> set[str]:
    return {key for key in "abcdef" if loaded.get(key) is not None}


def test_the_versions_read_last_are_kept_as_far_as_their_bytes_go() -> None:
    loaded = Loaded(100)
    keep(loaded, a=40, b=40, c=20)
    assert kept(loaded) == {"a", "b", "c"}
    keep(loaded, d=30)
    assert kept(loaded) == {"b", "c", "d"}
    keep(loaded, e=1, f=1)
    assert kept(loaded) == {"b", "c", "d", "e", "f"}


def test_a_version_larger_than_all_the_room_is_kept_alone() -> None:
    loaded = Loaded(100)
    keep(loaded, a=40, b=500)
    assert kept(loaded) == {"b"}
    keep(loaded, c=40)
    assert kept(loaded) == {"c"}


def test_what_is_dropped_makes_room() -> None:
    loaded = Loaded(100)
    keep(loaded, a=40, b=40)
    loaded.drop("b")
    loaded.drop("b")
    keep(loaded, c=60)
    assert kept(loaded) == {"a", "c"}


def test_threads_that_want_the_same_version_read_it_once() -> None:
    loaded = Loaded(100)
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
