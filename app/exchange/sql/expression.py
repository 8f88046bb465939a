"""The prediction as an expression of SQL over columns of a table. Importing this loads sqlglot."""

import re
from collections.abc import Sequence

import numpy as np
from sqlglot import exp

from app.data.columns.schema import Column
from app.errors import InvalidInput
from app.exchange.linear_form import (
    Cell,
    LevelSum,
    LinearForm,
    Part,
    Product,
    fill_of,
    level_index_of_gap,
    marks_of_gaps,
    numbers_of_gaps,
)
from app.exchange.sql.dialects import Dialect, as_double

CHUNK = 32  # Terms per chunk. Chunks are added in pairs, because databases limit the depth of an expression.
MAX_TABLE_PARTS = 3  # catalog, schema, table
ALIAS = "r"  # Alias of the table in the statement.


def select(form: LinearForm, dialect: Dialect, table: str) -> exp.Select:
    columns = [
        exp.alias_(_Target(form, index, dialect).expression(), target, quoted=True, copy=False)
        for index, target in enumerate(form.targets)
    ]
    return exp.Select().select(*columns, copy=False).from_(exp.alias_(_table(table), ALIAS, table=True), copy=False)


def _table(name: str) -> exp.Table:
    """Return the name of a table, or of one in a schema or catalog. Each part is quoted."""
    parts = name.split(".")
    if not 1 <= len(parts) <= MAX_TABLE_PARTS or not all(parts) or re.search(r"[\x00-\x1f]", name):
        raise InvalidInput.of_parameter("table", "Expected the name of a table, or SCHEMA.TABLE. Correct it.")
    names = [exp.to_identifier(part, quoted=True) for part in reversed(parts)]
    return exp.Table(**dict(zip(("this", "db", "catalog"), names, strict=False)))


class _Target:
    """Writes the prediction of one target."""

    def __init__(self, form: LinearForm, index: int, dialect: Dialect) -> None:
        self._form, self._index, self._dialect = form, index, dialect

    def expression(self) -> exp.Expression:
        start = as_double(self._dialect.number(float(self._form.start[self._index])))
        terms = [(False, start), *(self._term(part) for part in self._form.parts)]
        sums = [self._sum(terms[first : first + CHUNK]) for first in range(0, len(terms), CHUNK)]
        while len(sums) > 1:
            pairs = [sums[first : first + 2] for first in range(0, len(sums), 2)]
            sums = [self._in_brackets(pair) for pair in pairs]
        return sums[0]

    def _in_brackets(self, pair: Sequence[exp.Expression]) -> exp.Expression:
        if len(pair) == 1:
            return pair[0]
        left, right = (exp.Paren(this=part) for part in pair)
        return exp.Add(this=left, expression=right)

    def _sum(self, terms: Sequence[tuple[bool, exp.Expression]]) -> exp.Expression:
        """Return the sum from left to right. The first of a pair is True if the term is subtracted."""
        (negative, total), *rest = terms
        if negative:
            total = exp.Sub(this=as_double(self._dialect.number(0.0)), expression=total)
        for negative, term in rest:
            total = (exp.Sub if negative else exp.Add)(this=total, expression=term)
        return total

    def _term(self, part: Part) -> tuple[bool, exp.Expression]:
        dialect = self._dialect
        if isinstance(part, LevelSum):
            return False, as_double(self._levels(part.feature, part.values[:, self._index].tolist()))
        weight = float(part.weights[self._index])
        value = self._product(part)
        if part.centre:
            sign = exp.Sub if part.centre > 0 else exp.Add
            value = exp.Paren(this=sign(this=value, expression=dialect.number(abs(part.centre))))
        elif isinstance(value, exp.Mul):
            value = exp.Paren(this=value)
        return weight < 0, exp.Mul(this=dialect.number(abs(weight)), expression=value)

    def _product(self, part: Product) -> exp.Expression:
        factors = [self._cell(cell) for cell, power in part.factors for _ in range(power)]
        product = factors[0]
        for factor in factors[1:]:
            product = exp.Mul(this=product, expression=factor)
        return product

    def _cell(self, cell: Cell) -> exp.Expression:
        column = cell.feature
        if column.kind == "category":
            values = np.zeros(len(column.levels) + (column.missing == "indicator"))
            values[column.levels.index(cell.level) if cell.part == "level" else -1] = 1.0
            return as_double(self._levels(column, values.tolist()))
        value, fill = self._value(column), fill_of(column)
        if cell.part == "gap":
            one, zero = self._dialect.number(1.0), self._dialect.number(0.0)
            return as_double(exp.Case().when(exp.Is(this=value, expression=exp.Null()), one).else_(zero))
        if fill is None:
            return value
        return exp.Coalesce(this=value, expressions=[as_double(self._dialect.number(fill))])

    def _value(self, column: Column) -> exp.Expression:
        """Return the number of a column, null for a gap."""
        dialect, source = self._dialect, self._source(column)
        if column.kind == "date":
            return exp.Paren(this=dialect.day(source))
        if column.kind == "boolean":
            return as_double(dialect.boolean(source))
        value = dialect.without_marks(dialect.numeric(source), numbers_of_gaps(column))
        return value if fill_of(column) is None else dialect.without_nan(value)

    def _levels(self, column: Column, values: Sequence[float]) -> exp.Expression:
        """Return the value of each level, null for one that is not known."""
        dialect = self._dialect
        text = exp.cast(self._source(column), "text")
        case = exp.Case(this=text)
        for level, value in zip(column.levels, values, strict=False):
            case = case.when(exp.Literal.string(level), dialect.number(float(value)), copy=False)
        gap = level_index_of_gap(column)
        if gap is not None:
            marks = [exp.Literal.string(mark) for mark in ("", *marks_of_gaps(column))]
            is_gap = exp.Or(
                this=exp.Is(this=text.copy(), expression=exp.Null()),
                expression=exp.In(this=exp.Trim(this=text.copy()), expressions=marks),
            )
            case = case.else_(exp.Case().when(is_gap, dialect.number(float(values[gap]))), copy=False)
        return case

    def _source(self, column: Column) -> exp.Expression:
        return exp.column(column.name, table=ALIAS, quoted=True)
