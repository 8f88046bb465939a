"""Opening of the registry: over the models folder, or over a store that machines share."""

import contextlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from app.errors import NotFound, Unavailable
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

    With `watch`, a thread polls the pointers of served models, so that predictions never wait for the store, and the
    model `pinned` is published in the store if the models folder has it and the store never had it. `cache_dir` gets
    copies of versions, for a start without the store. Raises StoreMisconfigured if the environment is not valid for it.
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
        PointerWatch(registry).start()
        if pinned is not None:
            _seed(registry, FolderPublisher(models_dir), pinned)
    return registry


def _seed(registry: "BucketPublisher", folder: FolderPublisher, model: str) -> None:
    """Publish the current version of the folder in a store that never had the model."""
    with contextlib.suppress(NotFound, Unavailable, ParentChanged):  # another replica published it
        if registry.had(model):
            return
        version = folder.current(model)
        card = replace(version.card, parent=None, upload=None)
        folds = folder.folds(model, version.card.version)
        published = registry.publish(card, version.model, folds, promote=True, expected=None)
        _log.info("model copied to the store", extra={"model": model, "version": published.card.version})
