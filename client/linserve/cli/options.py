"""Options of the API on the command line: lists of names, and `--option NAME=VALUE` for options without a flag."""

import csv
import json
from typing import Annotated, Any

import typer

from linserve._options import in_json
from linserve._steps import BytesBody
from linserve.cli.text import clean
from linserve.cli.uploads import Upload

Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "-O",
        metavar="NAME=VALUE",
        help="Any other option of the API, such as dates=dmy. Can be given several times.",
    ),
]


def NameOption(text: str, *names: str) -> Any:  # noqa: N802 - used like typer.Option
    """Return an option with names of columns."""
    return typer.Option(*names, metavar="NAMES", help=f"{text} Separate names by commas, or repeat the option.")


def options_of(pairs: list[str] | None) -> dict[str, str]:
    """Return the options in texts such as `dates=dmy`. Raises typer.BadParameter."""
    options: dict[str, str] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"--option expects NAME=VALUE, found {clean(pair)!r}")
        if name in options:
            raise typer.BadParameter(f"--option {clean(name)} is given twice")
        options[name] = value
    return options


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None and value != []}


def in_query(options: dict[str, Any]) -> dict[str, str]:
    """Return the options that are given, as texts. Items of a list are separated by commas, as the user may also do."""
    return {name: _text(value) for name, value in _given(options).items()}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def with_options(upload: Upload, options: dict[str, Any]) -> BytesBody:
    """Return a request in JSON with the options that are given added to it. Raises typer.BadParameter."""
    try:
        document = json.loads(upload.read())
    except ValueError as error:
        raise typer.BadParameter(f"{upload.name} is not valid JSON: {error}") from None
    if isinstance(document, list):
        document = {"instances": document}
    added = in_json(in_document(options))
    if both := sorted(added.keys() & document.keys()):
        raise typer.BadParameter(f"{upload.name} already contains {', '.join(both)}")
    return BytesBody(json.dumps(document | added).encode())


def in_document(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that are given, as JSON has them: lists of names, and numbers as numbers."""
    return {name: _typed(value) for name, value in _given(options).items()}


def _typed(value: Any) -> Any:
    if isinstance(value, list):
        return next(csv.reader([",".join(value)]))
    if not isinstance(value, str):
        return value
    try:
        number = json.loads(value)
    except ValueError:
        return value
    return number if isinstance(number, int | float) else value
