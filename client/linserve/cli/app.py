"""The table of commands."""

from typing import Annotated

import typer

from linserve._version import VERSION
from linserve.cli.evaluating import evaluate
from linserve.cli.files import export, import_
from linserve.cli.inspecting import inspect
from linserve.cli.models import delete, models, promote, rollback, show, versions
from linserve.cli.predicting import predict
from linserve.cli.serve import serve
from linserve.cli.settings import settings
from linserve.cli.training import cancel, jobs, merge, train, watch

# Plain help texts: they load without rich, and can be read in a pipe.
app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, pretty_exceptions_enable=False)
COMMANDS = {
    "train": train, "predict": predict, "evaluate": evaluate, "inspect": inspect, "show": show, "models": models,
    "versions": versions, "promote": promote, "rollback": rollback, "delete": delete, "jobs": jobs, "watch": watch,
    "cancel": cancel, "export": export, "import": import_, "merge": merge,
}  # fmt: skip

for name, command in COMMANDS.items():
    app.command(name)(command)
app.add_typer(settings, name="config")
# Options of the server are not those of this command.
app.command("serve", context_settings={"ignore_unknown_options": True}, add_help_option=False)(serve)


def _version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"linserve {VERSION}")
        raise typer.Exit


@app.callback()
def linserve(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=lambda wanted: _version(wanted=wanted), is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    """Train linear models with a Linserve service, and predict with them.

    The address of the service and the API key are options, or LINSERVE_URL and LINSERVE_API_KEY, or stored with
    `linserve config set`.

    \b
    Example: linserve train rents.csv --target rent --model rents
    Example: linserve predict rents.csv --model rents --interval 0.95
    """  # noqa: D301 - \b is the mark of typer for lines that are not to be joined
