"""The cross-validated errors of the versions of models, read once for each version."""

import math
import threading
import time
from collections.abc import Iterable, Sequence

from cachetools import LRUCache

from app.errors import ModelFileInvalid, NotFound, Unavailable
from app.registry.base import ModelReader
from app.registry.model_card import ModelCard

NEWEST = 20  # Versions of a model that are drawn.
MAX_KNOWN = 50_000  # Versions whose errors are cached, of all models.
READING_SECONDS = 0.3  # Time for reading cards of one page. The rest is read when the page is opened again.


def validated_error(card: ModelCard) -> float | None:
    """Return the root mean square error over the targets on rows that the model was not fitted to, if it is known."""
    mse = card.metrics.get("cross_validation", {}).get("mse")
    return math.sqrt(mse) if isinstance(mse, float | int) and 0 <= mse < math.inf else None


class ErrorHistory:
    """Errors by model and version. A version never changes, so they are cached for ever. Thread-safe."""

    def __init__(self) -> None:
        self._known: LRUCache[tuple[str, int], float | None] = LRUCache(MAX_KNOWN)
        self._lock = threading.Lock()

    def read(
        self, registry: ModelReader, versions: Iterable[tuple[str, Sequence[int]]]
    ) -> tuple[dict[str, dict[int, float | None]], bool]:
        """Return the errors of the newest versions by model, in ascending order, and whether all could be read in time.

        `versions` are the models and the numbers of all their versions, in ascending order.
        """
        deadline = time.monotonic() + READING_SECONDS
        errors: dict[str, dict[int, float | None]] = {}
        complete = True
        for model, numbers in versions:
            found = {}
            for number in reversed(numbers[-NEWEST:]):
                with self._lock:
                    is_known = (model, number) in self._known
                    error = self._known.get((model, number))
                if not is_known:
                    if time.monotonic() > deadline:
                        complete = False
                        break
                    error = self._read(registry, model, number)
                found[number] = error
            errors[model] = dict(reversed(found.items()))
        return errors, complete

    def _read(self, registry: ModelReader, model: str, number: int) -> float | None:
        try:
            error = validated_error(registry.card(model, number))
        except (NotFound, ModelFileInvalid, Unavailable):  # deleted meanwhile, damaged, or not to be read just now
            return None
        with self._lock:
            self._known[model, number] = error
        return error
