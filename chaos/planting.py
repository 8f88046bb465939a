"""Plant a bug in a process of the service: replace attributes of its modules as soon as they are loaded.

A bug is a function that assigns to attributes, so mypy checks their names. It is an error if an attribute does not
exist, or if nothing changes; otherwise, a bug that was never planted would count as missed by the harness.

Imported by `recorder/sitecustomize.py` when a process of the service starts, so it imports only the standard library.
"""

import contextlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

BUG = "CHAOS_BUG"  # environment variable: MODULE:NAME of the plant
RECORD = "CHAOS_PLANTED"  # environment variable: the file in which each process notes the outcome
DONE = "planted"
EXIT_STATUS = 70

Attribute = tuple[str, str]  # a module, or a class with its module; and the name of an attribute


class NotPlanted(Exception):
    """The bug did not change the service as it should. The message has the reason."""


@dataclass(frozen=True)
class Plant:
    """A function that replaces attributes, and the modules that must be loaded before it is called."""

    change: Callable[[], None]
    modules: tuple[str, ...]

    @property
    def address(self) -> str:
        return f"{self.change.__module__}:{self.change.__name__}"


def after(*modules: str) -> Callable[[Callable[[], None]], Plant]:
    """Turn the decorated function into a Plant. Only processes that load these modules get the bug."""
    return lambda change: Plant(change, modules)


def plant_when_loaded(address: str, record: Path) -> None:
    """Plant the bug in this process when the last of its modules is loaded. A failure ends the process."""
    module, _, name = address.partition(":")
    plant: Plant = getattr(importlib.import_module(module), name)
    sys.meta_path.insert(0, _Watch(plant.modules, lambda: _plant_or_exit(plant, record)))


def change(plant: Plant) -> dict[Attribute, Any]:
    """Apply the plant to the modules in this process, and return the old values of the attributes it replaced.

    Raises NotPlanted.
    """
    for module in plant.modules:
        importlib.import_module(module)
    loaded = set(sys.modules)
    before = _attributes()
    plant.change()
    if early := sorted(name for name in set(sys.modules) - loaded if name.startswith("app.")):
        raise NotPlanted(f"{plant.address} also changes {', '.join(early)}; add it to the modules that it comes after")
    after = _attributes()
    if unknown := sorted(".".join(place) for place in after.keys() - before.keys()):
        raise NotPlanted(f"{plant.address} assigns to {', '.join(unknown)}, which the service does not have")
    old = {place: value for place, value in before.items() if after.get(place) is not value}
    if not old:
        raise NotPlanted(f"{plant.address} changes nothing")
    return old


@contextlib.contextmanager
def changed(plant: Plant) -> Iterator[dict[Attribute, Any]]:
    """Apply the plant for the block, and yield the old values of the attributes it replaced. Raises NotPlanted."""
    old = change(plant)
    try:
        yield old
    finally:
        for (owner, name), value in old.items():
            setattr(_owners()[owner], name, value)


def check_outcome(record: Path, *, started: bool = True) -> None:
    """Raise NotPlanted if planting failed in a process, or if the service `started` and no process has the bug."""
    noted = record.read_text() if record.exists() else ""
    if faults := [text for text in noted.split("\0") if text not in ("", DONE)]:
        raise NotPlanted(faults[0])
    if started and not noted:
        raise NotPlanted("no process of the service loaded the modules in which the bug is planted")


def _plant_or_exit(plant: Plant, record: Path) -> None:
    fault = DONE
    try:
        change(plant)
    except BaseException:
        fault = traceback.format_exc()
    with record.open("a") as file:  # a single write is not mixed with those of other processes
        file.write(f"{fault}\0")
    if fault != DONE:
        os._exit(EXIT_STATUS)


def _owners() -> dict[str, Any]:
    """Return `os`, the modules of the service and the classes that they name, by their names."""
    modules = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "app"}
    classes = {
        f"{value.__module__}.{value.__qualname__}": value
        for module in list(modules.values())
        for value in list(vars(module).values())
        if inspect.isclass(value)
    }
    return classes | modules | {"os": os}


def _attributes() -> dict[Attribute, Any]:
    """Return each attribute of the owners as it is stored, so that a static method is not replaced by its function."""
    return {
        (name, attribute): value
        for name, owner in _owners().items()
        for attribute, value in list(vars(owner).items())
        if not isinstance(value, ModuleType)
    }


class _Watch(MetaPathFinder):
    """Calls a function when the last of some modules is loaded."""

    def __init__(self, modules: Sequence[str], then: Callable[[], None]) -> None:
        self._unfound, self._unloaded = set(modules), set(modules)
        self._then = then

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        if fullname not in self._unfound:
            return None
        self._unfound.discard(fullname)  # the other finders are asked next
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, lambda: self._loaded(fullname))
        return spec

    def _loaded(self, name: str) -> None:
        self._unloaded.discard(name)
        if not self._unloaded:
            self._then()


class _Loader(Loader):
    """Loads as another loader does, and calls a function afterwards."""

    def __init__(self, loader: Loader, then: Callable[[], None]) -> None:
        self._loader, self._then = loader, then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._then()
