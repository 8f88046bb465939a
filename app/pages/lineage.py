"""The versions of a model, newest first, with the lines that lead from each to its parent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from app.errors import ModelFileInvalid, NotFound, Unavailable
from app.pages.charts import svg
from app.registry.base import ModelReader
from app.registry.model_card import ModelCard

MAX_VERSIONS = 50  # Versions on a page.
MAX_LANES = 8  # Lines side by side. Further ones are not drawn.
LANE = 14.0  # Width of a line's place.
HEIGHT = 10.0  # Height of a row, which the style sheet stretches.

_MODES = {"replace": "trained anew", "update": "rows added to", "forget": "rows taken out of"}


@dataclass(frozen=True)
class LineageRow:
    number: int
    card: ModelCard | None  # None if the file cannot be read
    fault: str | None
    is_current: bool
    rail: Markup

    @property
    def made(self) -> str:
        """How the version came from its parent."""
        if self.card is not None and self.card.imported is not None:
            return "imported"
        return "" if self.card is None else _MODES[self.card.mode]

    @property
    def error(self) -> tuple[float | None, str]:
        """The error to compare versions by, and which one it is."""
        if self.card is None:
            return None, ""
        return error_of(self.card)


@dataclass(frozen=True)
class Lineage:
    rows: list[LineageRow]
    count: int
    older: int | None  # number below which the next page begins
    is_newest: bool
    lanes: int  # lines side by side


def error_of(card: ModelCard) -> tuple[float | None, str]:
    """Return the cross-validated mean squared error of a version, or that of the training rows, and which it is."""
    validated: dict[str, Any] = card.metrics.get("cross_validation") or {}
    if validated.get("mse") is not None:
        return validated["mse"], "cross-validated"
    return card.metrics.get("mse"), "training rows"


def lineage(registry: ModelReader, model: str, current: int | None, before: int | None = None) -> Lineage:
    """Return the newest versions, or those below the number `before`. Raises ModelNotFound."""
    numbers = registry.versions(model)
    below = [number for number in reversed(numbers) if before is None or number < before]
    cards: list[tuple[int, ModelCard | None, str | None]] = []
    for number in below[:MAX_VERSIONS]:
        try:
            cards.append((number, registry.card(model, number), None))
        except ModelFileInvalid as error:
            cards.append((number, None, error.message))
        except (NotFound, Unavailable):
            continue  # deleted meanwhile
    parents = [(number, None if card is None else card.parent) for number, card, _ in cards]
    drawn, lanes = rails(parents)
    rows = [
        LineageRow(number, card, fault, number == current, rail)
        for (number, card, fault), rail in zip(cards, drawn, strict=True)
    ]
    older = below[MAX_VERSIONS - 1] if len(below) > MAX_VERSIONS else None
    return Lineage(rows, len(numbers), older, before is None, lanes)


def rails(parents: Sequence[tuple[int, int | None]]) -> tuple[list[Markup], int]:
    """Return for each version, newest first, its part of the lines from versions to their parents.

    Also return the number of lines side by side, which is at most MAX_LANES.
    """
    lanes: list[int | None] = []  # the version that each line leads to
    drawn: list[tuple[int, list[str]]] = []
    for number, parent in parents:
        above = list(lanes)
        own = lanes.index(number) if number in lanes else _free(lanes)
        commands = []
        for lane, target in enumerate(above):
            if target == number:
                commands.append(_line(lane, 0, own, HEIGHT / 2))
                lanes[lane] = None
            elif target is not None:
                commands.append(_line(lane, 0, lane, HEIGHT))
        if parent is not None:
            if parent in lanes:
                commands.append(_line(own, HEIGHT / 2, lanes.index(parent), HEIGHT))
            else:
                lanes[own] = parent
                commands.append(_line(own, HEIGHT / 2, own, HEIGHT))
        while lanes and lanes[-1] is None:
            lanes.pop()
        drawn.append((own, commands))
    count = max([1, *(min(own, MAX_LANES - 1) + 1 for own, _ in drawn)])
    return [_rail(own, commands, LANE * count) for own, commands in drawn], count


def _free(lanes: list[int | None]) -> int:
    if None in lanes:
        return lanes.index(None)
    lanes.append(None)
    return len(lanes) - 1


def _line(start: int, top: float, end: int, bottom: float) -> str:
    x, y, to_x, to_y = map(svg.coordinate, (_x(start), top, _x(end), bottom))
    return f"M{x} {y}L{to_x} {to_y}"


def _x(lane: int) -> float:
    return LANE * (min(lane, MAX_LANES - 1) + 0.5)


def _rail(own: int, commands: list[str], width: float) -> Markup:
    node = f"M{svg.coordinate(_x(own))} {svg.coordinate(HEIGHT / 2)}h0"
    return svg.element(
        "svg",
        svg.path(commands, "rail-line"),
        svg.path([node], "rail-node"),
        viewBox=f"0 0 {svg.coordinate(width)} {svg.coordinate(HEIGHT)}",
        preserveAspectRatio="none",
        width=width,
        height=HEIGHT,
        aria_hidden="true",
        class_="rail",
    )
