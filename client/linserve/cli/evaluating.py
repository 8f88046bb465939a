"""The command that measures the errors of versions on labelled rows."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from linserve._steps import segment
from linserve.cli.completion import complete_model
from linserve.cli.options import Options, options_of
from linserve.cli.session import Session, connected
from linserve.cli.uploads import Upload

_METRICS = ("rows", "rmse", "mae", "bias", "r2", "max_absolute_error", "interval_coverage", "mean_interval_width")


@connected
def evaluate(
    session: Session,
    *,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Table with the targets, or - for standard input.")],
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Default: the default model.", autocompletion=complete_model)
    ] = None,
    versions: Annotated[
        list[str] | None, typer.Option(metavar="NUMBERS", help="Up to four versions, such as 1,2. Default: current.")
    ] = None,
    by: Annotated[str | None, typer.Option(metavar="NAME", help="Column whose values are segments.")] = None,
    level: Annotated[float | None, typer.Option(help="Level of the intervals. Default: 0.95.")] = None,
    weight: Annotated[str | None, typer.Option(metavar="NAME", help="Column of weights.")] = None,
    record: Annotated[bool, typer.Option("--record", help="Store the metrics in the service.")] = False,
    option: Options = None,
) -> None:
    """Measure the errors of versions on rows whose targets are known.

    \b
    Example: linserve evaluate rents.csv --model rents --versions 1,2
    """  # noqa: D301 - \b is the mark of typer for lines that are not to be joined
    options: dict[str, Any] = {
        "versions": versions,
        "by": by,
        "level": level,
        "weight": weight,
        "record": True if record else None,
        **options_of(option),
    }
    path = f"/models/{segment(session.default_model() if model is None else model)}/evaluate"
    with Upload(file) as upload:
        result = session.send_upload(path, upload, options).json()
    if session.output.json:
        session.output.document(result)
        return
    columns = ["version", "target", *_METRICS]
    if by is not None:
        columns.insert(1, by)
    session.output.table(columns, _rows(result, by))
    for version in result["versions"]:
        if left_out := version["left_out"]["rows"]:
            session.output.note(f"Version {version['version']}: {left_out} row(s) were left out.")


def _rows(result: dict[str, Any], by: str | None) -> Iterator[list[Any]]:
    for version in result["versions"]:
        groups: list[tuple[list[Any], dict[str, Any]]] = [([None] if by else [], version["targets"])]
        groups += [([segment["value"]], segment["targets"]) for segment in version["segments"] or ()]
        for group, targets in groups:
            for target, metrics in targets.items():
                yield [version["version"], *group, target, *(metrics.get(name) for name in _METRICS)]
