"""Cards of versions are read without their tensors, and read once."""

from dataclasses import replace

import pytest
from line import CARD
from models_folder import line
from registries import EVERYWHERE, Place

from app.errors import ModelNotFound, VersionNotFound
from app.registry.card_cache import CardCache, card_bytes
from app.registry.model_card import ModelCard


@EVERYWHERE
def test_a_card_is_that_of_the_version_until_the_version_is_deleted(place: Place) -> None:
    registry, other = place.open(), place.open()
    for number in (1, 2):
        registry.publish(replace(CARD, version=number), line(number))

    assert other.card("line", 1) == other.version("line", 1).card == registry.card("line", 1)
    assert other.card("line", 2).version == 2
    with pytest.raises(VersionNotFound):
        other.card("line", 3)

    registry.delete("line", 1)
    with pytest.raises(VersionNotFound):
        registry.card("line", 1)
    registry.delete_model("line")
    with pytest.raises(ModelNotFound):
        registry.card("line", 2)


def test_cards_are_cached_up_to_a_number_of_bytes() -> None:
    cache, reads = CardCache(2 * card_bytes(CARD)), list[int]()

    def look(number: int) -> None:
        def read() -> ModelCard:
            reads.append(number)
            return CARD

        cache.get(number, read)

    for number in (1, 2, 1, 2, 3, 2, 1):
        look(number)

    assert reads == [1, 2, 3, 1]
