"""`linserve serve`: hand over to `linserve-server`, which is another distribution."""

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from linserve._config import KEY_VARIABLE, URL_VARIABLE

SERVER = "linserve-server"
MISSING = (
    "The service is not installed here: there is no command linserve-server next to this Python or in PATH. Install it "
    "from the repository with `pip install .`, or run its image with `docker run -p 127.0.0.1:8000:8000 linserve`."
)


def serve(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[OPTION]...", help="Options of linserve-server, passed on.")
    ] = None,
) -> NoReturn:
    """Start the service on this machine, with the command `linserve-server`.

    All options are passed on to it. If it is installed, `linserve serve --help` shows its options.

    \b
    Example: linserve serve --port 8080
    """  # noqa: D301 - \b is the mark of typer for lines that are not to be joined
    program = server_path()
    if program is None:
        typer.echo(MISSING, err=True)
        raise typer.Exit(1)
    # The service refuses to start with variables that it does not know. These two are the client's.
    environment = {name: value for name, value in os.environ.items() if name not in (URL_VARIABLE, KEY_VARIABLE)}
    command = [program, *(arguments or [])]
    sys.stdout.flush()
    sys.stderr.flush()
    # The server takes over this process, so that it gets all signals and its exit status is that of the command.
    os.execve(program, command, environment)  # noqa: S606 - without a shell, on purpose


def server_path() -> str | None:
    """Return the path of `linserve-server`: next to this Python first, so that a virtual environment keeps together."""
    folder = str(Path(sys.executable).parent)
    return shutil.which(SERVER, path=folder) or shutil.which(SERVER)
