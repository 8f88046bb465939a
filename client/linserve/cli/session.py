"""Parts that all commands share: common options, the client, and the messages of errors."""

import functools
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from linserve._steps import Answer, Call, Plan, segment
from linserve.cli.options import in_query, with_options
from linserve.cli.output import Output, discard_stdout
from linserve.cli.progress import upload_bar
from linserve.cli.text import clean, clean_lines
from linserve.cli.uploads import STANDARD, Upload

if TYPE_CHECKING:
    from linserve._client import Client
    from linserve._retries import Retries

T = TypeVar("T")
# Errors that follow from the response of another kind of service.
_NOT_UNDERSTOOD = (KeyError, TypeError, AttributeError, json.JSONDecodeError)
_MAX_KEY_BYTES = 4096
_RETRIES = 2  # Further attempts after the first, which take about a second together if nothing answers.
_LONGEST_PAUSE = 600.0  # Longest wait for the response to an upload, all of which is checked before it, in seconds.

Url = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="Address of the service. Default: LINSERVE_URL, or the stored one."),
]
KeyFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="File with the API key, or - for standard input. Default: LINSERVE_API_KEY, or the stored key.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Write the JSON of the API; lists as one line per item.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Write no progress, notes and warnings.")]
# The options of every command that talks to the service, and their defaults.
COMMON: dict[str, tuple[Any, Any]] = {
    "url": (Url, None),
    "api_key_file": (KeyFile, None),
    "as_json": (Json, False),
    "quiet": (Quiet, False),
}


class Session:
    """One run of a command. The client is made at its first use."""

    def __init__(self, url: str | None, api_key_file: str | None, output: Output) -> None:
        self.output = output
        self._url = url
        self._api_key_file = api_key_file

    @functools.cached_property
    def client(self) -> "Client":
        from linserve._client import Client  # httpx takes 100 ms to load, and help and completion do without
        from linserve._config import checked_key, checked_url  # as above

        try:
            url = None if self._url is None else checked_url(self._url)
            key = checked_key(_key_of(self._api_key_file)) if self._api_key_file else None
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        return Client(url, key, retries=_RETRIES)

    def run(self, plan: Callable[["Retries"], Plan[T]]) -> T:
        """Run a plan of the client. Raises its errors."""
        return self.client._run(plan(self.client._retries))  # noqa: SLF001 - a part of the client's package

    def get(self, path: str, **params: Any) -> Any:
        """Return the JSON at a path. Parameters that are None are left out."""
        return self.send(Call("GET", path, in_query(params))).json()

    def send(self, call: Call) -> Answer:
        """Send a request, with the retries of the client. Raises its errors."""
        from linserve._retries import send  # as above

        succeeded = False
        try:
            answer = self.run(lambda retries: send(call, retries))
            succeeded = True
        finally:
            if call.sink is not None:
                call.sink.close(succeeded=succeeded)
        return answer

    def send_upload(self, path: str, upload: Upload, options: dict[str, Any], **call: Any) -> Answer:
        """Post the upload with these options, and show a progress bar."""
        if upload.is_request:
            return self.send(
                Call("POST", path, body=with_options(upload, options), read_timeout=_LONGEST_PAUSE, **call)
            )
        return self.send_file(path, upload, options, **call)

    def send_file(self, path: str, upload: Upload, options: dict[str, Any], **call: Any) -> Answer:
        """Post the upload as it is with these options in the query, and show a progress bar."""
        with upload_bar(upload.name, upload.length, quiet=self.output.quiet) as upload.on_sent:
            return self.send(Call("POST", path, in_query(options), body=upload, read_timeout=_LONGEST_PAUSE, **call))

    def default_model(self) -> str:
        return str(self.get("/health/ready")["model"])

    def wait(self, job: dict[str, Any], on_change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Follow a job until it ends, and return its last state."""
        from linserve._plans.training import follow  # as in `client`

        states = [job]

        def changed(state: dict[str, Any]) -> None:
            states[:] = [state]
            on_change(state)

        on_change(job)
        if job["finished_at"] is None:
            self.run(lambda retries: follow(retries, job, changed, None))
        return states[0]

    def close(self) -> None:
        if "client" in self.__dict__:
            self.client.close()


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a session and the common options, and map errors to messages and exit statuses."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for name, (annotation, default) in COMMON.items()
    ]

    def run(*, url: str | None, api_key_file: str | None, as_json: bool, quiet: bool, **options: Any) -> None:
        session = Session(url, api_key_file, Output(json=as_json, quiet=quiet))
        try:
            command(session, **options)
            sys.stdout.flush()
        except BrokenPipeError:
            discard_stdout()  # `| head` has read enough.
        except (typer.Exit, typer.BadParameter):
            raise
        except Exception as error:  # the errors of the client are imported only if there is one
            _explain(error, session)
        finally:
            session.close()

    functools.update_wrapper(run, command)
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + common
    vars(run)["__signature__"] = inspect.Signature(parameters)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _explain(error: Exception, session: Session) -> None:
    """Write an expected error to stderr and exit with 1. Raise any other error again."""
    from linserve.errors import LinserveError, Unauthenticated  # as in `client`

    if isinstance(error, _NOT_UNDERSTOOD):
        fail(f"A response from {session.client.url} is not valid ({error!r}). Check that it is a Linserve service.")
    if not isinstance(error, LinserveError | ValueError | OSError):
        raise error
    message = str(error)
    if isinstance(error, Unauthenticated):
        message += (
            "\nStore a key with `linserve config set api-key`, or set LINSERVE_API_KEY. A stored key is sent to the "
            "stored address only."
        )
    fail(message)


def fail(message: str) -> NoReturn:
    """Write a message to stderr and exit with 1."""
    typer.echo(f"Error: {clean_lines(message)}", err=True)
    raise typer.Exit(1)


def _key_of(name: str) -> str:
    """Return the API key in a file or on standard input. Raises typer.BadParameter."""
    try:
        if name == STANDARD:
            text = sys.stdin.readline(_MAX_KEY_BYTES)
        else:
            with Path(name).open(encoding="utf-8") as file:
                text = file.read(_MAX_KEY_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{name}: {error}") from None
    if not text.strip():
        raise typer.BadParameter(f"{clean(name)} contains no API key")
    return text.strip()


def split_selector(text: str) -> tuple[str, str | None]:
    """Return the model and the version of `MODEL@VERSION`."""
    model, _, version = text.partition("@")
    if not model or (not version and "@" in text):
        raise typer.BadParameter(f"expected MODEL or MODEL@VERSION, found {clean(text)!r}")
    return model, version or None


def version_path(session: Session, model: str, version: str | None) -> str:
    """Return the path of a version, which is given as a number or an alias. None is the current version."""
    model_path = f"/models/{segment(model)}"
    if version is None or not version.isdecimal():
        known = session.get(f"{model_path}/aliases")
        aliases = {"current": known["current"], **known["aliases"]}
        number = aliases.get(version or "current")
        if number is None:
            if version is None:
                fail(f"{model} has no current version. Choose one with `linserve promote {model} VERSION`.")
            fail(f"{version!r} is not an alias of {model}. Aliases: {', '.join(aliases)}.")
        version = str(number)
    return f"{model_path}/versions/{segment(version)}"
