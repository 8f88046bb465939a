"""The commands that send rows to a model: `predict` and `evaluate`."""

import json
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from linserve._bodies import MEDIA_TYPES, NDJSON
from linserve._plans.predicting import VERSION_HEADER
from linserve._steps import JSON, Answer, BytesBody, Call, segment
from linserve.cli.completion import complete_selector
from linserve.cli.options import NameOption, Options, in_document, options_of, with_options
from linserve.cli.rows import is_text, json_rows
from linserve.cli.session import Session, connected, fail, split_selector, version_path
from linserve.cli.sinks import RowsSink, sink_for
from linserve.cli.uploads import STANDARD, Upload

Selected: TypeAlias = tuple[str | None, str | None]  # the model and the version, as given
_SHOWN_ROWS = 100  # Rows of predictions that are drawn on a terminal.
_ROUNDING = 1e-9  # Largest difference of two predictions that rounding explains, relative to the sum of their parts.
_BINARY = ("arrow", "parquet", "xlsx")


class Format(StrEnum):
    CSV = "csv"
    NDJSON = "ndjson"
    JSON = "json"
    ARROW = "arrow"
    PARQUET = "parquet"
    XLSX = "xlsx"


@connected
def predict(
    session: Session,
    *,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Table with the rows, or - for standard input.")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL[@VERSION]",
            help="Model, or one of its versions by number or alias. Default: the default model.",
            autocompletion=complete_selector,
        ),
    ] = None,
    version: Annotated[str | None, typer.Option(help="Number or alias of the version. Default: current.")] = None,
    interval: Annotated[float | None, typer.Option(metavar="LEVEL", help="Add prediction intervals.")] = None,
    confidence: Annotated[
        float | None, typer.Option(metavar="LEVEL", help="Add intervals of the expected value.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Add the contribution of each column. For CSV, NDJSON and JSON.")
    ] = False,
    keep: Annotated[list[str] | None, NameOption("Columns to copy to the result.")] = None,
    missing: Annotated[str | None, typer.Option(help="null or refuse: rows with a missing value.")] = None,
    option: Options = None,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="File for the result. Default: standard output.")
    ] = "-",
    format_: Annotated[
        Format | None, typer.Option("--format", help="Format of the result. Default: that of the rows.")
    ] = None,
) -> None:
    """Predict for the rows of a file.

    The result has the format of the rows, or the one of the extension of --output. On a terminal, it is a table.

    \b
    Example: linserve predict rents.csv --model rents --interval 0.95 -o predictions.csv
    """  # noqa: D301 - \b is the mark of typer for lines that are not to be joined
    if session.output.json:
        if format_ not in (None, Format.JSON):
            raise typer.BadParameter("--json and --format cannot be combined")
        format_ = Format.JSON
    selected = _selected(model, version)
    options: dict[str, Any] = {"interval": interval, "confidence": confidence, "missing": missing, **options_of(option)}
    with Upload(file) as upload:
        if not explain:
            _predict(
                session, f"{_path(*selected)}/predict", upload, options | {"keep": keep}, output=output, format_=format_
            )
        elif keep or format_ not in (None, Format.JSON) or (output != STANDARD and Path(output).suffix != ".json"):
            raise typer.BadParameter("--explain cannot be combined with --keep, and writes only JSON")
        else:
            _explain(session, selected, upload, options, output)


def _predict(
    session: Session, path: str, upload: Upload, options: dict[str, Any], *, output: str, format_: Format | None
) -> None:
    accepted = MEDIA_TYPES[format_] if format_ else None
    if output == STANDARD and format_ is None and sys.stdout.isatty():
        rows = RowsSink(_SHOWN_ROWS)
        answer = session.send_upload(path, upload, options, headers={"accept": NDJSON}, sink=rows, proof=VERSION_HEADER)
        _draw(session, rows)
    else:
        if output != STANDARD and accepted is None:
            accepted = MEDIA_TYPES.get(Path(output).suffix.lower().lstrip("."))
        sent = accepted or upload.media_type
        is_text = sent not in [MEDIA_TYPES[name] for name in _BINARY]
        headers = {"accept": accepted} if accepted else {}
        sink = sink_for(output, is_text=is_text)
        answer = session.send_upload(path, upload, options, headers=headers, sink=sink, proof=VERSION_HEADER)
        if is_text and output == STANDARD and sys.stdout.isatty():
            session.output.text("")
    _note(session, answer, output)


def _draw(session: Session, sink: RowsSink) -> None:
    columns = list(sink.rows[0]) if sink.rows else []
    session.output.table(columns, ([row.get(column) for column in columns] for row in sink.rows))
    if not sink.is_complete:
        session.output.note(f"Only the first {_SHOWN_ROWS} rows are shown. Add --output FILE to get all.")


def _note(session: Session, answer: Answer, output: str) -> None:
    """Note the version unless the result has it, and warn about rows without a prediction."""
    if output != STANDARD or sys.stdout.isatty():
        model, version = answer.headers.get("linserve-model"), answer.headers.get("linserve-version")
        if model and version:
            session.output.note(f"Predicted by {model}, version {version}.")
    missing = answer.headers.get("linserve-missing-rows", "0")
    if missing != "0":
        reasons = answer.headers.get("linserve-missing-reasons", "a value is missing, or a level is not known")
        session.output.note(f"Warning: {missing} row(s) have no prediction: {reasons}.")


def _explain(session: Session, selected: Selected, upload: Upload, options: dict[str, Any], output: str) -> None:
    options = {"unknown": "null", **options, "missing": options["missing"] or "null"}  # as for tables
    model, version = selected
    model = model or session.default_model()
    schema = session.get(f"{version_path(session, model, version)}/schema")
    if upload.is_request:
        body = with_options(upload, {**options, "explain": True})
    else:
        document = {"instances": json_rows(upload, schema), "explain": True, **in_document(options)}
        body = BytesBody(json.dumps(document).encode())
    call = Call("POST", f"{_path(*selected)}/predict", headers={"accept": JSON}, body=body)
    expected = _read_by_service(session, selected, upload, options) if is_text(upload) else None
    answer = session.send(call)
    result = answer.json()
    if expected is not None:
        _check_reading(result, expected, upload.name)
    _note(session, answer, output)
    if output != STANDARD:
        Path(output).write_bytes(answer.content)
        return
    if session.output.json:
        session.output.document(result)
        return
    targets = [target["name"] for target in schema["targets"]]
    columns = ("row", "target", "column", "contribution")
    session.output.table(columns, _contributions(result, targets, schema["columns"]))


def _read_by_service(session: Session, selected: Selected, upload: Upload, options: dict[str, Any]) -> list[Any]:
    """Return the predictions for the rows as the service reads them from the file."""
    path, headers = f"{_path(*selected)}/predict", {"accept": NDJSON}
    content = session.send_upload(path, upload, options, headers=headers, proof=VERSION_HEADER).content
    return [json.loads(line) for line in content.splitlines()]


def _check_reading(result: dict[str, Any], expected: list[Any], name: str) -> None:
    """Exit if an explained row has another prediction than the service has for the row of the file.

    The service reads a file as a whole. For example, it decides by all cells whether 1.500 has a decimal point.
    """
    explained = [*zip(result["predictions"], result["contributions"], strict=True)]
    same = [
        _is_same(predicted, contributions, result["baseline"], prediction)
        for (predicted, contributions), prediction in zip(explained, expected, strict=False)
    ]
    if len(explained) != len(expected):
        same.append(False)
    for number, is_same in enumerate(same, 1):
        if not is_same:
            fail(
                f"Row {number} of {name} has a value that this command reads differently from the service, so its "
                "explanation would be wrong. Send the rows as NDJSON or JSON."
            )


def _is_same(
    predicted: dict[str, Any], contributions: dict[str, Any], baseline: dict[str, Any], expected: dict[str, Any]
) -> bool:
    """Return True if predictions by target are equal except for rounding errors of their parts."""
    for target, value in predicted.items():
        other = expected[target]
        if value is None or other is None:
            if value is not other:
                return False
            continue
        parts = (value, baseline[target], *contributions[target].values())
        if abs(value - other) > _ROUNDING * sum(map(abs, parts)):
            return False
    return True


def _contributions(result: dict[str, Any], targets: list[str], columns: list[str]) -> Iterator[list[Any]]:
    """Yield the baseline, the contribution of each column, and the prediction, which is their sum."""
    baseline = _named(result["baseline"], targets)
    predicted = zip(result["predictions"], result["contributions"], strict=True)
    for number, (predictions, contributions) in enumerate(predicted, 1):
        by_target = _named(contributions, targets)
        for target, prediction in _named(predictions, targets).items():
            if prediction is None:
                continue
            yield [number, target, "baseline", baseline[target]]
            yield from ([number, target, *item] for item in _named(by_target[target], columns).items())
            yield [number, target, "prediction", prediction]


def _named(values: Any, names: list[str]) -> dict[str, Any]:
    """Return values by name. Those for rows that were sent as lists are lists too."""
    return values if isinstance(values, dict) else dict(zip(names, values, strict=True))


def _selected(model: str | None, version: str | None) -> Selected:
    name, inline = (None, None) if model is None else split_selector(model)
    if inline and version:
        raise typer.BadParameter("the version is given twice")
    version = version or inline
    if version and name is None:
        raise typer.BadParameter("--version needs --model")
    return name, version


def _path(model: str | None, version: str | None) -> str:
    if model is None:
        return ""
    if version is None:
        return f"/models/{segment(model)}"
    kind = "versions" if version.isdecimal() else "aliases"
    return f"/models/{segment(model)}/{kind}/{segment(version)}"
