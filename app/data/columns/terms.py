"""Terms over the columns of a table, as terms over the columns of the design."""

from collections.abc import Sequence

from app.data.columns.schema import TableSchema


def encoded_terms(terms: Sequence[str], table: TableSchema) -> tuple[str, ...]:
    """Return the terms with each column that is a term of its own replaced by its columns of the design."""
    own = {column.name: column.encoded_names for column in table.features}
    return tuple(name for term in terms for name in own.get(term, (term,)))


def term_blocks(terms: Sequence[str], table: TableSchema) -> tuple[slice, ...]:
    """Return the places of the indicator columns in `encoded_terms`, a slice for each column that has some."""
    own = {column.name: column for column in table.features}
    blocks, end = [], 0
    for term in terms:
        column = own.get(term)
        end += 1 if column is None else len(column.encoded_names)
        if column is not None and column.indicators:
            blocks.append(slice(end - column.indicators, end))
    return tuple(blocks)
