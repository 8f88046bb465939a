"""Applies the schema of a version to another table, and names the differences."""

from app.data.columns.options import ReadingOptions
from app.data.columns.plan import Mode
from app.data.columns.profile import TableProfile
from app.data.columns.schema import TableSchema


def apply_schema(
    profile: TableProfile, current: TableSchema, options: ReadingOptions, *, mode: Mode
) -> tuple[TableSchema, list[str]]:
    """Return the schema with the levels of these rows, and warnings.

    Kinds, separators, date orders, constants and reference levels stay. `replace` takes the levels of these rows,
    `update` appends those that are new, and `forget` refuses them.

    Raises InvalidInput if a column is missing or does not fit its kind, or if an option contradicts the schema.
    """
    raise NotImplementedError
