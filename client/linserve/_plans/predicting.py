"""Plans of predictions and evaluations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

from linserve._bodies import ARROW, MEDIA_TYPES, body_of_source, is_source, json_body, media_type_of, with_options
from linserve._options import given, in_query
from linserve._results import Predictions, TablePrediction
from linserve._retries import Retries, send
from linserve._sinks import Output, sink_of
from linserve._steps import Answer, Body, Call, Plan, path_of
from linserve.errors import InvalidInput

if TYPE_CHECKING:
    from linserve._frames import Frame

# Options that can be sent only with rows in JSON.
_OF_JSON = ("explain", "extrapolation")
VERSION_HEADER = "linserve-version"  # Header that every prediction has.
_HEADERS = {"min_version": "linserve-min-version", "sticky": "linserve-sticky"}


@dataclass(frozen=True)
class Selection:
    """The version to predict with: one of a model, the one with an alias, or the current one."""

    model: str | None = None
    version: int | None = None
    alias: str | None = None

    @property
    def path(self) -> str:
        if self.model is None:
            if self.version is not None or self.alias is not None:
                raise ValueError("A version or an alias is one of a model. Give `model` too.")
            return ""
        if self.version is not None and self.alias is not None:
            raise ValueError("Give either `version` or `alias`.")
        if self.version is not None:
            return path_of("models", self.model, "versions", self.version)
        return path_of("models", self.model, *(() if self.alias is None else ("aliases", self.alias)))


@dataclass(frozen=True)
class Files:
    """The format of a file of rows, and the destination and the format of the results."""

    format_name: str | None = None
    output: Output | None = None
    output_format: str | None = None

    @property
    def accepted(self) -> str | None:
        """The media type of the results; None for the media type of the rows."""
        if self.output_format is not None:
            return media_type_of(self.output_format)
        if isinstance(self.output, str | PathLike):
            return MEDIA_TYPES.get(str(self.output).rpartition(".")[2].lower())
        return None


def predict(
    retries: Retries,
    rows: Any,
    options: Mapping[str, Any],
    files: Files,
) -> Plan[Any]:
    """Return predictions in the form of the rows."""
    options = given(options)
    selection = Selection(*(options.pop(name, None) for name in ("model", "version", "alias")))
    headers = {_HEADERS[name]: str(options.pop(name)) for name in _HEADERS if name in options}
    call = Call("POST", f"{selection.path}/predict", headers=headers, proof=VERSION_HEADER)
    if is_source(rows):
        if any(options.pop(name, False) for name in _OF_JSON):
            raise ValueError("`explain` and `extrapolation` need rows or a frame, not a file.")
        call = replace(call, body=body_of_source(rows, files.format_name))
        return (yield from _predict_file(retries, call, options, files))
    if files != Files():
        raise ValueError("`format`, `output` and `output_format` are for files. Rows and frames have no format.")
    if hasattr(rows, "__array__") and hasattr(rows, "tolist"):
        rows = rows.tolist()
    if isinstance(rows, Sequence):
        return (yield from _predict_rows(retries, call, rows, options))
    from linserve._frames import Frame, is_frame  # narwhals takes 40 ms.

    if not is_frame(rows):
        raise TypeError(
            f"Rows are a frame, a list, an array, a path, bytes or an open file, not {type(rows).__name__}."
        )
    return (yield from _predict_frame(retries, call, Frame(rows), options))


def _predict_file(
    retries: Retries,
    call: Call,
    options: Mapping[str, Any],
    files: Files,
) -> Plan[bytes | TablePrediction]:
    assert call.body is not None
    headers = dict(call.headers)
    if (media_type := files.accepted) is not None:
        headers["accept"] = media_type
    sink = None if files.output is None else sink_of(files.output)
    body, params = with_options(call.body, options)
    succeeded = False
    try:
        answer = yield from send(replace(call, params=params, headers=headers, body=body, sink=sink), retries)
        succeeded = True
    finally:
        if sink is not None:
            sink.close(succeeded=succeeded)
    return answer.content if sink is None else table_prediction(answer)


def table_prediction(answer: Answer) -> TablePrediction:
    """Return the facts in the headers of a table of predictions."""
    headers = answer.headers
    return TablePrediction(
        headers.get("linserve-model", ""),
        int(headers.get(VERSION_HEADER, 0)),
        int(headers.get("linserve-missing-rows", "0").partition(";")[0]),
    )


def _predict_rows(
    retries: Retries, call: Call, rows: Sequence[Any], options: Mapping[str, Any]
) -> Plan[Predictions[Any]]:
    options = {name: value for name, value in options.items() if value is not False}
    if "keep" in options:  # Columns are copied only to tables.
        if any(name in options for name in _OF_JSON):
            raise ValueError("`keep` cannot be combined with `explain` or `extrapolation`.")
        body: Body = json_body({"instances": rows})
        body, params = with_options(body, options)
    else:
        body, params = json_body({"instances": rows, **options}), {}
    answer = yield from send(replace(call, params=params, body=body), retries)
    result = answer.json("predictions")
    return Predictions(result.pop("predictions"), **result)


def _predict_frame(retries: Retries, call: Call, frame: "Frame", options: Mapping[str, Any]) -> Plan[Any]:
    if any(options.get(name) for name in _OF_JSON) and not frame.is_empty:
        defaults = {"missing": "null", "unknown": "null"}  # as for tables
        explained = yield from _explain_frame(retries, call, frame, defaults | dict(options))
        return frame.from_columns(explained_columns(explained))
    options = {name: value for name, value in options.items() if name not in _OF_JSON}
    body, params = with_options(frame.body(), options)
    headers = {**call.headers, "accept": ARROW}
    answer = yield from send(replace(call, params=params, headers=headers, body=body), retries)
    return frame.from_arrow(answer.content, options.get("keep", ()))


def _explain_frame(retries: Retries, call: Call, frame: "Frame", options: Mapping[str, Any]) -> Plan[Predictions[Any]]:
    """Return explained predictions. If the columns do not suffice, add the levels of the index that are features.

    Only the service knows the features. It refuses rows with other names.
    """
    rows = frame.rows()
    try:
        return (yield from _predict_rows(retries, call, rows, options))
    except InvalidInput as error:
        levels = frame.levels()
        if not levels:
            raise
        without_index = error
    try:
        return (yield from _predict_rows(retries, call, _with_columns(rows, levels), options))
    except InvalidInput as error:
        at_fault = {detail.column for detail in error.details}
        accepted = {name: values for name, values in levels.items() if name not in at_fault}
        if not accepted and at_fault - levels.keys():
            raise without_index from None
        if len(accepted) in (0, len(levels)):
            raise
        with_index = error
    try:
        return (yield from _predict_rows(retries, call, _with_columns(rows, accepted), options))
    except InvalidInput:
        raise with_index from None


def _with_columns(rows: Sequence[dict[str, Any]], columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [row | {name: values[index] for name, values in columns.items()} for index, row in enumerate(rows)]


def explained_columns(explained: Predictions[Any]) -> dict[str, list[Any]]:
    """Return predictions with their explanations as columns."""
    targets = list(next((row for row in explained if row), {}))
    columns = {target: [row and row[target] for row in explained] for target in targets}
    for target in targets:
        for suffix, intervals in (("", explained.intervals), ("_mean", explained.confidence_intervals)):
            bounds = [(row and row[target]) or (None, None) for row in intervals or ()]
            if bounds:
                columns[f"{target}{suffix}_lower"] = [lower for lower, _ in bounds]
                columns[f"{target}{suffix}_upper"] = [upper for _, upper in bounds]
    for target in targets if explained.contributions else ():
        columns[f"{target}_baseline"] = [row and explained.baseline[target] for row in explained]
        parts = [(row and row[target]) or {} for row in explained.contributions or ()]
        for feature in next(filter(None, parts), {}):
            columns[f"{target}_from_{feature}"] = [part.get(feature) for part in parts]
    if explained.extrapolation is not None:
        columns["leverage"] = [row and row["leverage"] for row in explained.extrapolation]
        columns["extrapolated"] = [row and row["flag"] for row in explained.extrapolation]
    return columns


def evaluate(
    retries: Retries, rows: Any, selection: Selection, options: Mapping[str, Any], format_name: str | None
) -> Plan[dict[str, Any]]:
    """Return the errors of versions on labelled rows."""
    options = given(options)
    path = f"{selection.path}/evaluate"
    params = in_query(options)
    if params is None:
        raise ValueError("The options are too long. Leave some out.")
    if is_source(rows):
        body: Body = body_of_source(rows, format_name)
    elif isinstance(rows, Sequence):
        body = json_body({"instances": rows})
    else:
        from linserve._frames import Frame, is_frame  # narwhals takes 40 ms.

        if not is_frame(rows):
            raise TypeError(f"Rows are a frame, a list, a path, bytes or an open file, not {type(rows).__name__}.")
        body = Frame(rows).body()
    answer = yield from send(Call("POST", path, params, {}, body, repeatable=not options.get("record")), retries)
    evaluation: dict[str, Any] = answer.json("versions")
    return evaluation
