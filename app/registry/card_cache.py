"""Cards in memory, bounded by bytes, so that a list of versions reads each file once."""

import threading
from collections.abc import Callable, Hashable

from cachetools import LRUCache

from app.registry.model_card import ModelCard

CACHED_BYTES = 16 << 20  # Bytes of the cached cards of a process.
CARD_BYTES = 6 << 10  # Approximate bytes of a card, without what it has for each column.
COLUMN_BYTES = 600  # Approximate bytes of a card for each feature, target and term.


def card_bytes(card: ModelCard) -> int:
    """Return an estimate of the bytes that a card takes in memory."""
    levels = sum(len(column.levels) for column in card.schema_of_rows.features)
    columns = len(card.features) + len(card.targets) + len(card.terms) + levels
    return CARD_BYTES + COLUMN_BYTES * columns


class CardCache:
    """Cards by key. The least recently used are evicted first. Thread-safe."""

    def __init__(self, max_bytes: int = CACHED_BYTES) -> None:
        self._cards: LRUCache[Hashable, ModelCard] = LRUCache(max_bytes, getsizeof=card_bytes)
        self._max_bytes = max_bytes
        self._lock = threading.Lock()  # never held while a file is read

    def get(self, key: Hashable, read: Callable[[], ModelCard]) -> ModelCard:
        """Return the card with this key, which `read` returns if it is not cached."""
        with self._lock:
            known = self._cards.get(key)
        if known is not None:
            return known
        card = read()
        if card_bytes(card) <= self._max_bytes:
            with self._lock:
                self._cards[key] = card
        return card
