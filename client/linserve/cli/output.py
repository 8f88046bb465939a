"""The output of the command: results on stdout, everything else on stderr.

On a terminal, tables are drawn by rich. Anywhere else they are lines of cells separated by tabs, complete and without
colours, for `cut` and `awk`. With `--json`, results are what the API sent.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import typer

from linserve.cli.text import as_json, cell, clean, clean_lines


class Output:
    """The two streams of one run of the command."""

    def __init__(self, *, json: bool, quiet: bool) -> None:
        self.json = json
        self.quiet = quiet

    @property
    def draws(self) -> bool:
        """True if stdout is a terminal, on which tables are drawn."""
        return sys.stdout.isatty()

    def document(self, value: Any) -> None:
        """Write one JSON document."""
        self._line(as_json(value, indent=2))

    def line(self, value: Any) -> None:
        """Write one line of JSON, as one of several items."""
        self._line(as_json(value))
        sys.stdout.flush()

    def text(self, text: str) -> None:
        self._line(clean_lines(text))

    def items(self, items: Iterable[dict[str, Any]], columns: Sequence[str], title: str = "") -> None:
        """Write a table with these fields of each item, or one line of JSON for each item."""
        if self.json:
            for item in items:
                self.line(item)
        else:
            self.table(columns, ([item.get(column) for column in columns] for item in items), title)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> None:
        if self.draws:
            self._draw(columns, rows, title)
            return
        lines = ["\t".join(cell(value, exact=True) for value in row) for row in rows]
        self._line("\t".join(map(clean, columns)))  # only now, because the rows may come from requests that fail
        for line in lines:
            self._line(line)

    def fields(self, pairs: Iterable[tuple[str, Any]]) -> None:
        """Write one line for each name and value that is not None."""
        shown = [(name, cell(value, exact=not self.draws)) for name, value in pairs if value is not None]
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            self._line(f"{name:<{width}}  {value}" if self.draws else f"{name}\t{value}")

    def note(self, text: str) -> None:
        """Write a sentence to stderr, unless the user asked for quiet."""
        if not self.quiet:
            typer.echo(clean_lines(text), err=True)

    def warnings(self, sentences: Iterable[str]) -> None:
        for sentence in sentences:
            self.note(f"Warning: {sentence}")

    @staticmethod
    def _line(text: str) -> None:
        sys.stdout.write(f"{text}\n")

    @staticmethod
    def _draw(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str) -> None:
        # rich takes 30 ms to load, and is needed on a terminal only.
        from rich.table import Table
        from rich.text import Text

        # Text objects have no markup, so that a column named [bold] is shown as it is.
        table = Table(
            box=None,
            padding=(0, 2, 0, 0),
            pad_edge=False,
            title=Text(clean_lines(title)) if title else None,
            title_justify="left",
        )
        cells = [list(row) for row in rows]
        for number, column in enumerate(columns):
            numeric = all(isinstance(row[number], int | float | None) for row in cells)
            table.add_column(Text(clean(column)), justify="right" if numeric else "left", overflow="fold")
        for row in cells:
            table.add_row(*(Text(cell(value, exact=False)) for value in row))
        console(sys.stdout).print(table)


def console(stream: Any) -> Any:
    """Return a rich console that interprets nothing in the text. It obeys NO_COLOR."""
    from rich.console import Console  # as above

    return Console(file=stream, markup=False, emoji=False, highlight=False, soft_wrap=False)


def discard_stdout() -> None:
    """Point stdout to nowhere, because its reader has closed the pipe and Python flushes it at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
