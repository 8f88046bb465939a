"""Rows of CSV, NDJSON and JSON as the JSON that an explanation needs."""

import csv
import gzip
import io
import json
import math
import re
from collections.abc import Collection
from functools import lru_cache
from typing import Any

import typer

from linserve._bodies import CSV, NDJSON
from linserve._steps import JSON
from linserve.cli.uploads import Upload

_TEXTS = (CSV, "text/plain", "text/tab-separated-values")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_SEPARATORS = (",", ";", "\t", "|")


def is_text(upload: Upload) -> bool:
    """Return True for rows in a text without types, such as CSV."""
    return upload.media_type in _TEXTS


def json_rows(upload: Upload, schema: dict[str, Any]) -> list[Any]:
    """Return the rows of the upload for a version with this schema. Raises typer.BadParameter."""
    if upload.media_type not in (NDJSON, JSON, *_TEXTS):
        raise typer.BadParameter("--explain needs rows in CSV, NDJSON or JSON")
    try:
        text = _content(upload).decode("utf-8-sig")
        if upload.media_type == NDJSON:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        if upload.media_type == JSON:
            return list(json.loads(text))
        return _csv_rows(text, schema)
    except ValueError as error:
        raise typer.BadParameter(f"{upload.name} cannot be read: {error}") from None


def _content(upload: Upload) -> bytes:
    if upload.encoding is None:
        return upload.read()
    if upload.encoding == "gzip":
        return gzip.decompress(upload.read())
    raise typer.BadParameter("--explain cannot read zstd. Decompress the file first")


def _csv_rows(text: str, schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the features of each row. The columns are read as in training."""
    features = {feature["name"]: feature for feature in schema["features"]}
    separator = _separator(text, features.keys(), (schema.get("dialect") or {}).get("sep") or ",")
    rows = csv.DictReader(io.StringIO(text), delimiter=separator, strict=True, skipinitialspace=separator == " ")
    return [{name: _value(cell, features[name]) for name, cell in row.items() if name in features} for row in rows]


def _separator(text: str, features: Collection[str], trained: str) -> str:
    """Return the separator that finds the most features in the header. The training rows' separator wins a tie."""

    def count(separator: str) -> int:
        header = next(csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=separator == " "), [])
        return len(set(features).intersection(header))

    return max((trained, *_SEPARATORS), key=count)


def _value(cell: str | None, feature: dict[str, Any]) -> Any:
    """Return a cell as JSON has it. A text that is not of the column's kind stays, and the service names its place."""
    if cell is None or not cell.strip() or cell in ("NA", *feature["na"]):
        return None
    if feature["kind"] != "number":
        return cell
    text = cell.strip()
    if _grouped(feature["thousands"], feature["decimal"]).fullmatch(text):
        text = text.replace(feature["thousands"] or "\0", "").replace(feature["decimal"], ".")
    elif not _NUMBER.fullmatch(text):
        return cell
    value = float(text)
    return value if math.isfinite(value) else cell


@lru_cache
def _grouped(thousands: str, decimal: str) -> re.Pattern[str]:
    """Return the numbers with these signs, with separators after every three digits or without any."""
    groups = rf"|[0-9]{{1,3}}(?:{re.escape(thousands)}[0-9]{{3}})+" if thousands else ""
    point = re.escape(decimal)
    return re.compile(rf"[+-]?(?:(?:[0-9]+{groups})(?:{point}[0-9]*)?|{point}[0-9]+)(?:[eE][+-]?[0-9]+)?")
