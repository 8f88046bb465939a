"""The commands `linserve config ...`, for the address and the key in the configuration file."""

import sys
from enum import StrEnum
from typing import Annotated

import typer

from linserve._config import Config, config_path, is_same_service, read_config, write_config
from linserve.cli.output import Output
from linserve.cli.session import Json, fail
from linserve.cli.text import clean

settings = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Store the address of the service and the API key."
)
_SHOWN = 4  # Characters of a key that are shown.


class Setting(StrEnum):
    URL = "url"
    API_KEY = "api-key"  # pragma: allowlist secret - the name of the setting


Name = Annotated[Setting, typer.Argument(metavar="url|api-key", help="The setting.", show_default=False)]


@settings.command("set")
def set_(
    name: Name,
    value: Annotated[
        str | None, typer.Argument(metavar="[VALUE]", help="The address. A key is asked for, or read from a pipe.")
    ] = None,
) -> None:
    """Store the address, or the API key.

    A key is never an argument, because other users could see it in the list of processes, and the shell would record
    it. It is asked for on a terminal, and read from standard input otherwise.

    \b
    Example: linserve config set url https://linserve.example.org
    Example: linserve config set api-key < key.txt
    """  # noqa: D301 - \b is the mark of typer for lines that are not to be joined
    if name is Setting.API_KEY and value not in (None, "-"):
        raise typer.BadParameter(
            "a key is not given as an argument, because it would be in the shell's history. Leave it out to be asked"
        )
    if name is Setting.URL and value is None:
        raise typer.BadParameter("the address is missing")
    stored = stored_config()
    try:
        if name is Setting.URL:
            _write(with_url(stored, value or ""))
        else:
            _write(Config(stored.url, _ask()))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def with_url(stored: Config, url: str) -> Config:
    """Return the configuration with another address, and without the key if it was stored for another service."""
    moved = stored.api_key is not None and stored.url is not None and not is_same_service(stored.url, url)
    if moved:
        typer.echo(
            "The stored key was for another address, so it was removed. Store the key of this address.", err=True
        )
    return Config(url, None if moved else stored.api_key)


@settings.command("get")
def get(
    name: Annotated[
        Setting | None, typer.Argument(metavar="[url|api-key]", help="Default: both.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Show the stored address and key. Only the last characters of a key are shown.

    \b
    Example: linserve config get url
    """  # noqa: D301 - as above
    stored = stored_config()
    key = None if stored.api_key is None else masked(stored.api_key)
    values = {Setting.URL: stored.url, Setting.API_KEY: key}
    output = Output(json=json, quiet=False)
    if name is None:
        shown = {setting.replace("-", "_"): value for setting, value in values.items()}
        if json:
            output.document(shown)
        else:
            output.fields(values.items())
    elif values[name] is None:
        fail(f"{name} is not stored.")
    elif json:
        output.document(values[name])
    else:
        output.text(str(values[name]))


@settings.command("path")
def path() -> None:
    """Show the path of the file.

    \b
    Example: linserve config path
    """  # noqa: D301 - as above
    Output(json=False, quiet=False).text(str(config_path()))


@settings.command("unset")
def unset(name: Name) -> None:
    """Remove the address or the API key from the file.

    \b
    Example: linserve config unset api-key
    """  # noqa: D301 - as above
    stored = stored_config()
    _write(Config(stored.url, None) if name is Setting.API_KEY else Config(None, None))
    if name is Setting.URL and stored.api_key is not None:
        typer.echo("The key was removed too, because it was for this address.", err=True)


def stored_config() -> Config:
    try:
        return read_config()
    except ValueError as error:
        fail(str(error))


def _write(config: Config) -> None:
    try:
        written = write_config(config)
    except OSError as error:
        fail(f"The file cannot be written: {error}")
    typer.echo(f"Stored in {clean(str(written))}.", err=True)


def masked(key: str) -> str:
    """Return the last characters of a long key, for recognition. The rest is never shown."""
    return f"…{key[-_SHOWN:]}" if len(key) >= 4 * _SHOWN else "…"


def _ask() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("API key", hide_input=True, err=True))
    return sys.stdin.readline()
