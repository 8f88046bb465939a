"""The commands that export and import models."""

import sys
import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from linserve._bodies import OCTETS
from linserve._plans.models import EXPORT_HEADER
from linserve._steps import JSON, Call, segment
from linserve.cli.completion import complete_model, complete_selector
from linserve.cli.models import write_card
from linserve.cli.options import NameOption, Options, in_query, options_of
from linserve.cli.session import Session, connected, split_selector, version_path
from linserve.cli.sinks import sink_for
from linserve.cli.training import Promotion
from linserve.cli.uploads import STANDARD, Upload

_TEXTS = ("sql", "python", "json", "pmml")
_XML = "application/xml"
# Extensions that name the format. The service recognises files with any other extension by their first bytes.
_MEDIA_TYPES = {".json": JSON, ".pmml": _XML, ".xml": _XML}


@connected
def export(
    session: Session,
    *,
    selector: Annotated[
        str,
        typer.Argument(
            metavar="MODEL[@VERSION]",
            help="A model, or one of its versions by number or alias.",
            autocompletion=complete_selector,
        ),
    ],
    format_: Annotated[
        str,
        typer.Option("--format", help="safetensors, onnx, pmml, sql, python, xlsx, json or linserve."),
    ],
    dialect: Annotated[
        str | None, typer.Option(help="With sql: duckdb, sqlite, postgres, bigquery or snowflake.")
    ] = None,
    option: Options = None,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="File to write. Default: standard output.")
    ] = STANDARD,
) -> None:
    """Write a version in a format that other tools read.

    Parts of the version that the format cannot hold are listed on standard error.

    \b
    Example: linserve export crop-yield --format sql --dialect duckdb -o crop_yield.sql
    """  # noqa: D301 - \b is the mark of typer for lines that are not to be joined
    path = f"{version_path(session, *split_selector(selector))}/export"
    params = in_query({"format": format_, "dialect": dialect, **options_of(option)})
    sink = sink_for(output, is_text=format_ in _TEXTS)
    answer = session.send(Call("GET", path, params, sink=sink, proof=EXPORT_HEADER))
    if output == STANDARD and sys.stdout.isatty():
        session.output.text("")
    for sentence in filter(None, answer.headers.get("linserve-not-exported", "").split("; ")):
        session.output.note(f"Note: {sentence}.")


@connected
def import_(
    session: Session,
    *,
    file: Annotated[str, typer.Argument(metavar="FILE", help="File of a model, or - for standard input.")],
    model: Annotated[
        str, typer.Option(metavar="NAME", help="Model that gets the new version.", autocompletion=complete_model)
    ],
    features: Annotated[list[str] | None, NameOption("Features, if the file does not name them.")] = None,
    targets: Annotated[list[str] | None, NameOption("Targets, if the file does not name them.")] = None,
    promote: Annotated[Promotion | None, typer.Option(help="When the new version becomes current.")] = None,
    option: Options = None,
) -> None:
    """Import a fitted model as a new version.

    The file may be JSON, safetensors (a state_dict of one nn.Linear, or a version of Linserve), ONNX or PMML.

    \b
    Example: linserve import linear.safetensors --model rents --features area,rooms --targets rent
    """  # noqa: D301 - as above
    options: dict[str, Any] = {"features": features, "targets": targets, "promote": promote, **options_of(option)}
    headers = {"idempotency-key": str(uuid.uuid4())}
    with Upload(file) as upload:
        upload.media_type = _MEDIA_TYPES.get(Path(file).suffix.lower(), _type_by_content(upload))
        card = session.send_file(f"/models/{segment(model)}/versions", upload, options, headers=headers).json()
    if session.output.json:
        session.output.document(card)
    else:
        write_card(session, card)


def _type_by_content(upload: Upload) -> str:
    return JSON if upload.head(1) == b"{" else OCTETS
