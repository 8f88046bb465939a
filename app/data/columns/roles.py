"""The use of a table's columns in a training."""

from dataclasses import dataclass

from app.data.columns.options import ReadingOptions


@dataclass(frozen=True)
class Roles:
    """The columns of a table, and their use in a training."""

    names: tuple[str, ...]  # all columns of the table that may be used, in its order
    targets: tuple[str, ...]
    weight: str | None = None
    features: tuple[str, ...] | None = None  # None: all others, except identifiers

    @property
    def others(self) -> tuple[str, ...]:
        """Targets and weight."""
        return self.targets if self.weight is None else (*self.targets, self.weight)

    @property
    def used(self) -> list[str]:
        """The columns that are read: features, targets and weight."""
        features = [name for name in self.features or self.names if name not in self.others]
        return list(dict.fromkeys([*features, *self.others]))

    def chosen(self, options: ReadingOptions) -> set[str]:
        """Return the columns that are never left out, because the client named them."""
        categories = {name for name, column in options.columns.items() if column.kind == "category"}
        return {*(self.features or ()), *categories, *self.others}
