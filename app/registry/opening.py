"""Opening of the registry: over the models folder, or over a store that machines share."""

import logging
import weakref
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from app.errors import NotFound, StoreUnavailable, Unavailable
from app.registry.base import ModelPublisher, ParentChanged
from app.registry.folder.publisher import FolderPublisher
from app.registry.version_cache import CACHED_BYTES
from app.storage.memory_budget import MemoryBudget

if TYPE_CHECKING:  # it is loaded only with a store
    from app.registry.bucket.publisher import BucketPublisher

_log = logging.getLogger(__name__)


def open_registry(
    storage_url: str | None,
    models_dir: Path,
    *,
    cached_bytes: int = CACHED_BYTES,
    pinned: str | None = None,
    budget: MemoryBudget | None = None,
    cache_dir: Path | None = None,
    watch: bool = False,
) -> ModelPublisher:
    """Return the registry of the store at `storage_url`, or of the models folder if it is None.

    With `watch`, a thread polls the pointers of served models, so that predictions never wait for the store. Once the
    store is reached, the model `pinned` of the models folder is published in it, unless the store ever had that model.
    `cache_dir` gets copies of versions, for a start without the store.

    Raises StoreMisconfigured if the environment is not valid for the store.
    """
    if storage_url is None:
        return FolderPublisher(models_dir, cached_bytes=cached_bytes, pinned=pinned, budget=budget)
    # Not imported without a store, because obstore takes time and memory.
    from app.registry.bucket.publisher import BucketPublisher
    from app.registry.bucket.watch import PointerWatch
    from app.storage.opening import open_store

    registry = BucketPublisher(
        open_store(storage_url), cached_bytes=cached_bytes, pinned=pinned, budget=budget, cache_dir=cache_dir
    )
    if watch:
        seed = None if pinned is None else _Seed(registry, FolderPublisher(models_dir), pinned)
        registry.watched = True  # the seed must not wait for a store that does not answer
        PointerWatch(registry, None if seed is None or seed.plant() else seed.plant).start()
    return registry


class _Seed:
    """Publishes the default model of the models folder in a store that never had it."""

    def __init__(self, registry: "BucketPublisher", folder: FolderPublisher, model: str) -> None:
        self._registry = weakref.ref(registry)  # so that the thread that polls ends with it
        self._folder, self._model = folder, model

    def plant(self) -> bool:
        """Publish the current version, unless the store had the model. Return False if the store is unavailable."""
        registry, model = self._registry(), self._model
        if registry is None:
            return True
        try:
            if registry.had(model):
                return True
            version = self._folder.current(model)
            card = replace(version.card, parent=None, upload=None)
            folds = self._folder.folds(model, version.card.version)
            published = registry.publish(card, version.model, folds, promote=True, expected=None)
        except StoreUnavailable:
            return False
        except (NotFound, ParentChanged):  # another replica published it
            return True
        except Unavailable as error:
            _log.error("model not copied to the store", extra={"model": model, "reason": error.message})
            return True
        _log.info("model copied to the store", extra={"model": model, "version": published.card.version})
        return True
