"""The command that shows how a training would read a table."""

from typing import Annotated, Any

import typer

from linserve.cli.completion import complete_model
from linserve.cli.options import NameOption, Options, options_of
from linserve.cli.session import Session, connected
from linserve.cli.uploads import Upload

_COLUMNS = ("name", "role", "kind", "level_count", "gaps", "missing", "minimum", "maximum")


@connected
def inspect(
    session: Session,
    *,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Table with the rows, or - for standard input.")],
    target: Annotated[list[str] | None, NameOption("Columns to predict.")] = None,
    feature: Annotated[list[str] | None, NameOption("Columns to predict from. Default: all others.")] = None,
    drop: Annotated[list[str] | None, NameOption("Columns to leave out.")] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Model whose columns are compared.", autocompletion=complete_model),
    ] = None,
    option: Options = None,
) -> None:
    """Show how a training would read the rows of a file, and train nothing.

    \b
    Example: linserve inspect rents.csv --target rent
    """  # noqa: D301 - \b is the mark of typer for lines that are not to be joined
    options: dict[str, Any] = {
        "targets": target, "features": feature, "drop": drop, "model": model, **options_of(option)
    }  # fmt: skip
    with Upload(file) as upload:
        found = session.send_upload("/inspect", upload, options).json()
    if session.output.json:
        session.output.document(found)
        return
    session.output.items(found["columns"], _COLUMNS)
    for left_out in found["left_out"]:
        session.output.note(f"Left out: {left_out['name']} ({left_out['reason']}).")
    session.output.warnings(found["warnings"])
