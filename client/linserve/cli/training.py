"""The commands that train, and those for the jobs that do."""

import contextlib
import shlex
import uuid
from enum import StrEnum
from typing import Annotated, Any, NoReturn

import typer

from linserve._bodies import OCTETS, FormBody
from linserve._steps import Call, segment
from linserve.cli.completion import complete_model
from linserve.cli.models import Limit, metrics_of, pages
from linserve.cli.options import NameOption, Options, in_query, options_of
from linserve.cli.progress import describe, training_bar
from linserve.cli.session import Session, connected, fail
from linserve.cli.text import clean
from linserve.cli.uploads import Upload

SUCCEEDED = "succeeded"
INTERRUPTED = 130  # 128 + SIGINT, as shells show it
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.")]


class Promotion(StrEnum):
    ALWAYS = "always"
    IF_BETTER = "if_better"
    NEVER = "never"


class Solver(StrEnum):
    EXACT = "exact"
    GRADIENT_DESCENT = "gradient_descent"


@connected
def train(
    session: Session,
    *,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Table with the rows, or - for standard input.")],
    target: Annotated[list[str] | None, NameOption("Columns to predict. Default: those of the model.")] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Model that gets the new version.", autocompletion=complete_model)
    ] = None,
    feature: Annotated[list[str] | None, NameOption("Columns to predict from. Default: all others.")] = None,
    drop: Annotated[list[str] | None, NameOption("Columns to leave out.")] = None,
    terms: Annotated[list[str] | None, NameOption("Columns made from the features, such as temp^2.")] = None,
    update: Annotated[bool, typer.Option("--update", help="Add the rows to those of the current version.")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Take the rows out of the current version.")] = False,
    promote: Annotated[Promotion | None, typer.Option(help="When the new version becomes current.")] = None,
    weight: Annotated[str | None, typer.Option(metavar="NAME", help="Column of weights.")] = None,
    missing: Annotated[str | None, typer.Option(help="drop, refuse, indicator or fill.")] = None,
    folds: Annotated[int | None, typer.Option(min=2, help="Folds of a cross-validation.")] = None,
    l2: Annotated[str | None, typer.Option(metavar="PENALTY", help="Ridge penalty, or auto.")] = None,
    solver: Annotated[Solver | None, typer.Option(help="How the coefficients are found. Default: exact.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="With gradient_descent.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="With gradient_descent.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="With gradient_descent.")] = None,
    option: Options = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the training ends.")] = True,
) -> None:
    """Train a new version of a model from the rows of a file.

    The format is that of the file's extension, or is recognised by the first bytes.

    \b
    Example: linserve train rents.csv --target rent --model rents
    """  # noqa: D301 - \b is the mark of typer for lines that are not to be joined
    if update and forget:
        raise typer.BadParameter("--update and --forget cannot be combined")
    options: dict[str, Any] = {
        "model": model,
        "targets": target,
        "features": feature,
        "drop": drop,
        "terms": terms,
        "mode": "update" if update else "forget" if forget else None,
        "promote": promote,
        "weight": weight,
        "missing": missing,
        "folds": folds,
        "l2": l2,
        "solver": solver,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        **options_of(option),
    }
    headers = {"idempotency-key": str(uuid.uuid4())}
    with Upload(file) as upload:
        job = session.send_upload("/train", upload, options, headers=headers).json()
    _show(session, job, wait=wait)


@connected
def merge(
    session: Session,
    *,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Model that gets the new version.", autocompletion=complete_model)
    ],
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Version files of other services.")],
    forget: Annotated[bool, typer.Option("--forget", help="Take their rows out again.")] = False,
    promote: Annotated[Promotion | None, typer.Option(help="always or never.")] = None,
    option: Options = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the job ends.")] = True,
) -> None:
    """Add the training rows in version files to those of a model, without the rows themselves.

    The files are those of `linserve export MODEL --format linserve`.

    \b
    Example: linserve merge rents oslo.safetensors bergen.safetensors
    """  # noqa: D301 - as above
    options = {"mode": "forget" if forget else None, "promote": promote, **options_of(option)}
    with contextlib.ExitStack() as stack:
        uploads = [stack.enter_context(Upload(file)) for file in files]
        for upload in uploads:
            upload.media_type = OCTETS
        body = uploads[0] if len(uploads) == 1 else FormBody(tuple(uploads))
        headers = {"idempotency-key": str(uuid.uuid4())}
        call = Call("POST", f"/models/{segment(model)}/merge", in_query(options), headers, body)
        job = session.send(call).json()
    _show(session, job, wait=wait)


def _show(session: Session, job: dict[str, Any], *, wait: bool) -> None:
    if wait:
        _follow(session, job)
    elif session.output.json:
        session.output.document(job)
    else:
        _write_job(session, job)


@connected
def watch(session: Session, job: JobId) -> None:
    """Follow a training until it ends. The exit status is 1 if it fails.

    \b
    Example: linserve watch 0b54fcbc-ac0c-4d0c-8b33-2b1c3c8f3a0e
    """  # noqa: D301 - as above
    _follow(session, session.get(f"/jobs/{segment(job)}"), changes=True)


@connected
def cancel(session: Session, job: JobId) -> None:
    """Cancel a training that is queued or running.

    \b
    Example: linserve cancel 0b54fcbc-ac0c-4d0c-8b33-2b1c3c8f3a0e
    """  # noqa: D301 - as above
    ended = session.send(Call("POST", f"/jobs/{segment(job)}/cancel")).json()
    if session.output.json:
        session.output.document(ended)
    else:
        _write_job(session, ended)


@connected
def jobs(
    session: Session,
    *,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only of this model.", autocompletion=complete_model)
    ] = None,
    status: Annotated[str | None, typer.Option(help="queued, running, succeeded, failed or cancelled.")] = None,
    limit: Limit = 20,
) -> None:
    """List trainings, the newest first.

    \b
    Example: linserve jobs --status running
    """  # noqa: D301 - as above
    found = pages(session, "/jobs", limit, model=model, status=status)
    session.output.items(found, ("id", "status", "model", "version", "created_at", "finished_at"))


def _follow(session: Session, job: dict[str, Any], *, changes: bool = False) -> None:
    """Show the progress of a job until it ends, and exit with 1 if it did not succeed.

    With `changes` and --json, every change is one line. Otherwise only the end is written.
    """
    output = session.output
    try:
        with training_bar(quiet=output.quiet) as show:

            def change(state: dict[str, Any]) -> None:
                show(state)
                if changes and output.json:
                    output.line(state)

            job = session.wait(job, change)
    except KeyboardInterrupt:
        _interrupted(job["id"])
    if not output.json:
        _write_job(session, job)
    elif not changes:
        output.document(job)
    output.warnings(job["warnings"])
    if job["status"] != SUCCEEDED:
        fail(failure_of(job))


def _interrupted(job: str) -> NoReturn:
    word = shlex.quote(clean(job))  # The words are made to be pasted into a shell.
    typer.echo(
        f"Interrupted. The training continues as job {word}. Follow it with `linserve watch {word}`, or stop it with "
        f"`linserve cancel {word}`.",
        err=True,
    )
    raise typer.Exit(INTERRUPTED)


def failure_of(job: dict[str, Any]) -> str:
    """Return why a job did not succeed, with the places of the faults."""
    from linserve.errors import problem_from_json  # only after a failure

    if not job.get("error"):
        return f"Job {job['id']} was {job['status']}."
    return f"Job {job['id']} {job['status']}: {problem_from_json(job['error'])}"


def _write_job(session: Session, job: dict[str, Any]) -> None:
    names = ("id", "status", "model", "version", "created_at", "started_at", "finished_at")
    progress = describe(job) if job.get("progress") and job["finished_at"] is None else None
    session.output.fields([*((name, job.get(name)) for name in names), ("progress", progress), *metrics_of(job)])
