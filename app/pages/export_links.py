"""Links to the exports of a version, from the table of formats."""

from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlencode

from app.exchange import EXPORTS

# Labels of formats whose names do not say enough.
LABELS = {
    "safetensors": "PyTorch",
    "onnx": "ONNX",
    "pmml": "PMML",
    "python": "Python",
    "xlsx": "Excel",
    "json": "JSON",
    "linserve": "Version file",
    "duckdb": "DuckDB",
    "sqlite": "SQLite",
    "postgres": "PostgreSQL",
    "bigquery": "BigQuery",
    "snowflake": "Snowflake",
}


class ExportLink(NamedTuple):
    """The text of a link, and its query."""

    label: str
    query: str


def export_links() -> list[ExportLink]:
    """Return a link for each format, or for each value of its first option if it has some."""
    return list(_links())


def _links() -> Iterator[ExportLink]:
    for export in EXPORTS:
        name = LABELS.get(export.name, export.name)
        option, values = next(iter(export.options.items()), ("", ()))
        if not values:
            yield ExportLink(name, urlencode({"format": export.name}))
        for value in values:
            title = f"{export.name.upper()} for {LABELS.get(value, value)}"
            yield ExportLink(title, urlencode({"format": export.name, option: value}))
