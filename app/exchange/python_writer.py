"""A version as one function of Python that needs only the standard library."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from app.data.columns.schema import Column
from app.data.names import shown
from app.exchange.left_behind import check_size, described, left_behind, read_as_typed
from app.exchange.linear_form import (
    Cell,
    LevelSum,
    LinearForm,
    Part,
    fill_of,
    level_index_of_gap,
    marks_of_gaps,
    numbers_of_gaps,
)
from app.exchange.portable import PortableModel
from app.registry.version_file import Version

MAX_WEIGHTS = 100_000  # Statements and levels in the function.
MAX_LISTED_LEVELS = 20  # Levels of a category in the docstring.
WIDTH = 110  # Characters of a line of the docstring.

# The readers of values, by kind. They are nested in the function. A value that is missing becomes NaN or None.
READERS = {
    "number": """
def number(name, fill=nan, marks=()):
    value = row[name]
    if value is None or value != value or value in marks:
        return fill
    if isinstance(value, (str, bool)):
        raise TypeError(f"{name!r}: expected a number, found {type(value).__name__}")
    return float(value)
""",
    "boolean": """
def boolean(name, fill=nan):
    value = row[name]
    if value is None or value != value:
        return fill
    if value not in (0, 1):  # True and False equal 1 and 0.
        raise TypeError(f"{name!r}: expected True or False, found {type(value).__name__}")
    return float(value)
""",
    "date": '''
def days(name, fill=nan):
    """Return the days since 1970-01-01 UTC."""
    value = row[name]
    if value is None or value != value:
        return fill
    if isinstance(value, str):
        value = datetime.fromisoformat(value.replace("Z", "+00:00"))
    if not isinstance(value, date):
        raise TypeError(f"{name!r}: expected a date, found {type(value).__name__}")
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if value.tzinfo is not None:
        value = value.astimezone(timezone.utc).replace(tzinfo=None)
    since = value - datetime(1970, 1, 1)
    return since.days + (since.seconds * 1_000_000 + since.microseconds) / 86_400_000_000
''',
    "category": """
def level(name, fill=None, marks=()):
    value = row[name]
    if value is None or value != value:
        return fill
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value)
    return fill if text.strip() in ("", *marks) else text
""",
}
NAMES = {"number": "number", "boolean": "boolean", "date": "days", "category": "level"}


class PythonExport:
    """A file with the function `predict`."""

    name = "python"
    media_type = "text/x-python"
    extension = ".py"
    options: Mapping[str, tuple[str, ...]] = {}

    def not_carried(self, version: Version) -> tuple[str, ...]:
        return (*left_behind(version), *read_as_typed(version))

    def write(self, version: Version, options: Mapping[str, str]) -> bytes:  # noqa: ARG002 - it has none
        """Return the program. Raises NotExportable if it would be too large."""
        model = PortableModel.of(version)
        form = LinearForm.of(model)
        check_size(form.size * len(form.targets), MAX_WEIGHTS, "A Python function", "weights")
        head = _docstring([*described(model, self.not_carried(version)), "It needs only the standard library."])
        kinds = dict.fromkeys(column.kind for column in form.features)
        imports = "from datetime import date, datetime, timezone\n\n" if "date" in kinds else ""
        return "\n".join([head, "", f"{imports}\ndef predict(row):", *_indented(_function(form, kinds)), ""]).encode()


def _function(form: LinearForm, kinds: Iterable[str]) -> Iterator[str]:
    yield _docstring(list(_about(form)))
    yield 'nan = float("nan")'
    for kind in kinds:
        yield from READERS[kind].rstrip().split("\n")
    yield ""
    variables = {column.name: f"x{index}" for index, column in enumerate(form.features, 1)}
    for column in form.features:
        yield f"{variables[column.name]} = {_reading(column)}"
    yield "predictions = {}"
    for index, target in enumerate(form.targets):
        yield ""
        yield f"y = {_number(form.start[index])}"
        for part in form.parts:
            yield f"y += {_term(part, index, variables)}"
        yield f"predictions[{_text(target)}] = None if y != y else y"
    yield "return predictions"


def _about(form: LinearForm) -> Iterator[str]:
    yield "Return the predictions by target for a row, a mapping from the names of the features to their values."
    yield ""
    yield "A missing value, None or NaN, gives None unless the model replaces it. An unknown level gives None."
    yield ""
    yield f"Targets: {', '.join(map(shown, form.targets))}"
    yield "Features:"
    for column in form.features:
        yield f"- {shown(column.name)}: {_kind(column)}"


def _kind(column: Column) -> str:
    if column.kind == "category":
        levels = ", ".join(map(shown, column.levels[:MAX_LISTED_LEVELS]))
        more = len(column.levels) - MAX_LISTED_LEVELS
        kind = f"category, one of {levels}" + (f" and {more} more" if more > 0 else "")
    elif column.kind == "date":
        kind = "date: a date, a datetime in UTC or with a zone, or ISO 8601 text"
    else:
        kind = column.kind
    gap = fill_of(column) if column.kind != "category" else level_index_of_gap(column)
    return kind if gap is None else f"{kind}; may be missing"


def _reading(column: Column) -> str:
    """Return the call that reads a feature."""
    arguments = [_text(column.name)]
    if column.kind == "category":
        if column.missing == "fill" and level_index_of_gap(column) is not None:
            arguments.append(f"fill={_text(str(column.fill))}")
        if marks := marks_of_gaps(column):
            arguments.append(f"marks={_tuple(map(_text, marks))}")
    else:
        # With an indicator, NaN stays until it is written.
        if column.missing == "fill" and (fill := fill_of(column)) is not None:
            arguments.append(f"fill={_number(fill)}")
        if column.kind == "number" and (na := numbers_of_gaps(column)):
            arguments.append(f"marks={_tuple(map(_number, na))}")
    return f"{NAMES[column.kind]}({', '.join(arguments)})"


def _term(part: Part, index: int, variables: Mapping[str, str]) -> str:
    if isinstance(part, LevelSum):
        return _levels(part.feature, part.values[:, index].tolist(), variables)
    factors = [_cell(cell, variables) for cell, power in part.factors for _ in range(power)]
    value = " * ".join(factors)
    if part.centre:
        value = f"({value} - {_number(part.centre)})"
    elif len(factors) > 1:
        value = f"({value})"
    return f"{_number(part.weights[index])} * {value}"


def _cell(cell: Cell, variables: Mapping[str, str]) -> str:
    column = cell.feature
    if column.kind == "category":
        values = np.zeros(len(column.levels) + (column.missing == "indicator"))
        values[column.levels.index(cell.level) if cell.part == "level" else -1] = 1.0
        return _levels(column, values.tolist(), variables)
    name = variables[column.name]
    if cell.part == "gap":
        return f"({name} != {name})"
    fill = fill_of(column)
    return (
        f"({_number(fill)} if {name} != {name} else {name})"
        if column.missing == "indicator" and fill is not None
        else name
    )


def _levels(column: Column, values: list[float], variables: Mapping[str, str]) -> str:
    levels: list[str] = [_text(level) for level in column.levels]
    if column.missing == "indicator":
        levels.append("None")
    items = ", ".join(f"{level}: {_number(value)}" for level, value in zip(levels, values, strict=True))
    return f"{{{items}}}.get({variables[column.name]}, nan)"


def _number(value: float) -> str:
    """Return a literal that makes the same double again."""
    return repr(float(value))


def _text(value: str) -> str:
    """Return a literal with visible characters, which no character of the value can end."""
    text = repr(value)
    return text if text.isprintable() else ascii(value)


def _tuple(items: Iterable[str]) -> str:
    return f"({''.join(f'{item}, ' for item in items).rstrip(' ')})"


def _docstring(lines: list[str]) -> str:
    """Return a docstring of lines. Names in it cannot end it, because three quotes and all backslashes are escaped."""
    wrapped = [part for line in lines for part in textwrap.wrap(line, WIDTH, break_long_words=False) or [""]]
    text = "\n".join(wrapped).replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    return f'"""{text}\n"""'


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"    {part}" if part else "" for line in lines for part in line.split("\n")]
