"""Describe the commands of `linserve` in Markdown, from the table of commands itself."""

import inspect
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from linserve.cli.app import app
from linserve.cli.session import COMMON

# What a value is called if its option has no word of its own.
_WORDS = {"str": "TEXT", "int": "NUMBER", "int range": "NUMBER", "float": "NUMBER"}
# typer makes these, with texts of its own.
_OF_TYPER = ("help", "install_completion", "show_completion")


def commands() -> Iterator[str]:
    """Yield a section for each command, with a table of its arguments and options."""
    root: Any = get_command(app)
    yield from ("## Options of most commands", "", *_table(root.commands["models"].params, shared=True))
    for name, command in root.commands.items():
        for title, single in ((f"{name} {inner}", one) for inner, one in getattr(command, "commands", {}).items()):
            yield from _section(title, single)
        if not hasattr(command, "commands"):
            yield from _section(name, command)


def _section(title: str, command: Any) -> Iterator[str]:
    words = " ".join(_usage(parameter) for parameter in command.params if parameter.param_type_name == "argument")
    usage = f"linserve {title} [OPTION]... {words}".strip()
    text, _, example = inspect.cleandoc(command.help).replace("\b", "").partition("Example: ")
    yield from ("", f"## {title}", "", f"`{usage}`", "", text.strip(), "")
    yield from (f"- `{line.removeprefix('Example: ').strip()}`" for line in example.splitlines())
    yield ""
    yield from _table(command.params, shared=False)
    if any(parameter.name == "url" for parameter in command.params):
        yield from ("", "It also has the [options of most commands](#options-of-most-commands).")


def _table(parameters: list[Any], *, shared: bool) -> Iterator[str]:
    rows = [
        f"| `{_names(parameter)}` | {_values(parameter)} | {parameter.help} |"
        for parameter in parameters
        if (parameter.name in COMMON) == shared and parameter.name not in _OF_TYPER
    ]
    if rows:
        yield from ("| option | value | meaning |", "|---|---|---|", *rows)


def _usage(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return _usage(parameter).replace("|", " or ")
    return ", ".join([*parameter.opts, *parameter.secondary_opts])


def _values(parameter: Any) -> str:
    choices = getattr(parameter.type, "choices", None)
    if choices:
        return ", ".join(f"`{getattr(choice, 'value', choice)}`" for choice in choices)
    if parameter.param_type_name == "argument" or getattr(parameter, "is_flag", False):
        return ""
    return str(parameter.metavar or _WORDS[parameter.type.name])
