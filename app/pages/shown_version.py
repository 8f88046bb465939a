"""The version that a page shows, reduced to a few targets, so that pages of wide models stay small."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.data.names import did_you_mean, shown
from app.errors import InvalidInput
from app.registry.version_file import Version
from app.regression.linear_model import LinearModel
from app.regression.target_selection import with_targets
from app.web.card_reasons import MAX_DECOMPOSED_COLUMNS
from app.web.model_view import COEFFICIENT_BYTES, NUMBER_BYTES, view_bytes

MAX_TARGETS = 4  # Targets on one page, and in one answer of its form.
MAX_TOGETHER = 40  # Coefficients of all targets on one page, unless one target has more.
DESIGN_COPIES = 3  # Matrices of the design's size that exist while a card is computed and no design is decomposed.
COPIES = 3  # Matrices of the version's size that exist while targets are selected.


@dataclass(frozen=True)
class ShownVersion:
    """A version with some of its targets, and what the page needs to link to the others."""

    version: Version
    original: Version
    first: int  # place of the first target shown

    @property
    def all_targets(self) -> tuple[str, ...]:
        return self.original.card.targets

    @property
    def targets(self) -> tuple[str, ...]:
        return self.version.card.targets

    @property
    def is_part(self) -> bool:
        """Return True if there are more targets."""
        return len(self.targets) < len(self.all_targets)

    @property
    def previous_target(self) -> str | None:
        """The first target of the page before, or None."""
        return self.all_targets[max(0, self.first - targets_at_once(self.original))] if self.first > 0 else None

    @property
    def next_target(self) -> str | None:
        """The first target of the page after, or None."""
        after = self.first + len(self.targets)
        return self.all_targets[after] if after < len(self.all_targets) else None


def targets_at_once(version: Version) -> int:
    """Return the number of targets on one page: fewer if each has many coefficients."""
    return max(1, min(MAX_TARGETS, MAX_TOGETHER // max(1, len(version.model.columns))))


def selection_bytes(version: Version) -> int:
    """Return an estimate of the bytes that `show` takes: none if all targets are shown."""
    model = version.model
    size = 1 + len(model.columns) + MAX_TARGETS
    return 0 if len(model.targets) <= targets_at_once(version) else COPIES * NUMBER_BYTES * size**2


def page_bytes(model: LinearModel) -> int:
    """Return an estimate of the bytes that a page takes, for a model of the targets that it shows.

    A card of a wide model decomposes no design, unless it has to find the rank.
    """
    size = view_bytes(model, None)
    if len(model.columns) > MAX_DECOMPOSED_COLUMNS and model.stored_rank is not None:
        design = DESIGN_COPIES * NUMBER_BYTES * len(model.columns) ** 2
        size = min(size, design + COEFFICIENT_BYTES * model.coef.size)
    return size


def show(version: Version, target: str | None = None, count: int | None = None) -> ShownVersion:
    """Return the version with `count` targets from `target` on. Defaults: as many as a page shows, from the first on.

    Raises InvalidInput if there is no such target.
    """
    targets = version.card.targets
    if target is not None and target not in targets:
        hint = did_you_mean(target, targets)
        raise InvalidInput.of_parameter("target", f"{shown(target)} is not a target of this version.{hint}")
    first = 0 if target is None else targets.index(target)
    count = targets_at_once(version) if count is None else count
    if len(targets) <= count:
        return ShownVersion(version, version, 0)
    kept = range(first, min(first + count, len(targets)))
    return ShownVersion(_with_targets(version, kept), version, first)


def _with_targets(version: Version, kept: Sequence[int]) -> Version:
    card = version.card
    names = [card.targets[index] for index in kept]
    table = card.schema_of_rows
    bounds = card.precision_bounds
    reduced = replace(
        card,
        targets=tuple(names),
        table=replace(table, targets=tuple(table.targets[index] for index in kept)),
        precision_bounds=None if bounds is None else {name: bounds[name] for name in names if name in bounds},
    )
    return replace(version, card=reduced, model=with_targets(version.model, kept))
