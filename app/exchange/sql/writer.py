"""A version as one SELECT over a table that has its features as columns."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from app.data.names import shown
from app.errors import NotExportable
from app.exchange.left_behind import check_size, described, left_behind, read_as_typed
from app.exchange.linear_form import LinearForm
from app.exchange.portable import PortableModel
from app.registry.version_file import Version

if TYPE_CHECKING:
    from app.exchange.sql.dialects import Dialect

MAX_WEIGHTS = 20_000  # Weights in a statement, which takes about 1 s and 100 MB.
TABLE = "rows"  # The table if none is given.


class SqlExport:
    """One SELECT expression for each target, in the dialect of a database."""

    name = "sql"
    media_type = "application/sql"
    extension = ".sql"
    options: Mapping[str, tuple[str, ...]] = {
        "dialect": ("duckdb", "sqlite", "postgres", "bigquery", "snowflake"),
        "table": (),
    }

    def not_carried(self, version: Version) -> tuple[str, ...]:
        return (*left_behind(version), *read_as_typed(version))

    def write(self, version: Version, options: Mapping[str, str]) -> bytes:
        """Return the statement, with a comment on top. Raises NotExportable if the database cannot run it."""
        from app.exchange.sql.dialects import DIALECTS  # they load sqlglot, which only this format needs
        from app.exchange.sql.expression import select

        dialect, model = DIALECTS[options["dialect"]], PortableModel.of(version)
        form = LinearForm.of(model)
        check_size(form.size * len(form.targets), MAX_WEIGHTS, "A statement", "weights")
        _check_names(form, dialect)
        statement = select(form, dialect, options["table"] or TABLE).sql(dialect.name, pretty=True, copy=False)
        head = [*described(model, self.not_carried(version)), *_about_columns(form, dialect)]
        content = "".join([*(f"-- {line}\n" for line in head), statement, ";\n"]).encode()
        check_size(len(content), dialect.max_bytes, f"A statement for {dialect.title}", "bytes")
        return content


def _check_names(form: LinearForm, dialect: "Dialect") -> None:
    """Raise NotExportable if no table of this database has these columns."""
    check_size(len(form.features), dialect.max_columns, f"A table in {dialect.title}", "columns")
    check_size(len(form.targets), dialect.max_targets, f"A SELECT in {dialect.title}", "columns")
    for names in ([column.name for column in form.features], form.targets):
        counts = Counter(_key(name, dialect) for name in names)
        if repeated := [name for name in names if counts[_key(name, dialect)] > 1]:
            raise NotExportable(
                f"{dialect.title} does not distinguish some names, such as {shown(repeated[0])} and "
                f"{shown(repeated[1])}. Export the model in another format or dialect."
            )
    for name in (*(column.name for column in form.features), *form.targets):
        if found := sorted({*name} & {*dialect.refused}):
            raise NotExportable(
                f"{dialect.title} has no columns with the character {found[0]}, as in {shown(name)}. Export the model "
                "in another format or dialect."
            )
    levels = (level for column in form.features for level in column.levels)
    if any("\0" in text for text in (*(column.name for column in form.features), *form.targets, *levels)):
        raise NotExportable("A name or a level has a NUL character, which SQL cannot hold.")


def _key(name: str, dialect: "Dialect") -> str:
    """Return equal text for names that the database does not distinguish."""
    if dialect.name_bytes is not None:
        name = name.encode()[: dialect.name_bytes].decode(errors="ignore")
    return name.lower() if dialect.folds_case else name


def _about_columns(form: LinearForm, dialect: "Dialect") -> Iterator[str]:
    kinds = {column.kind for column in form.features}
    yield f"For {dialect.title}. Numbers are 64-bit floating-point numbers."
    yield "A missing value gives NULL unless the model replaces it. A level that the model does not know gives NULL."
    if "date" in kinds:
        yield f"Columns of dates are {dialect.dates}."
    if "boolean" in kinds:
        yield f"Columns of booleans are {'0 or 1' if dialect.name == 'sqlite' else 'BOOLEAN, or 0 or 1'}."
