"""Terms over the columns of a table, as terms over the columns of the design."""

from collections.abc import Iterator, Sequence

from app.data.columns.schema import Column, TableSchema


def encoded_terms(terms: Sequence[str], table: TableSchema) -> tuple[str, ...]:
    """Return the terms with each column that is a term of its own replaced by its columns of the design."""
    own = {column.name: column.encoded_names for column in table.features}
    return tuple(name for term in terms for name in own.get(term, (term,)))


def indicator_blocks(terms: Sequence[str], table: TableSchema) -> Iterator[tuple[Column, slice]]:
    """Yield each column with indicators, and their places in `encoded_terms`, or without terms in the design."""
    own = {column.name: column for column in table.features}
    end = 0
    for term in terms or own:
        column = own.get(term)
        end += 1 if column is None else len(column.encoded_names)
        if column is not None and column.indicators:
            yield column, slice(end - column.indicators, end)


def term_blocks(terms: Sequence[str], table: TableSchema) -> tuple[slice, ...]:
    """Return the places of the indicators, a slice for each column that has some."""
    return tuple(block for _, block in indicator_blocks(terms, table))
