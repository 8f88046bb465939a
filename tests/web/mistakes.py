"""Requests as new users get them wrong: each natural mistake once for /predict and once for /train."""

import gzip
import io
import json
import unicodedata
import zipfile
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

JSON = {"content-type": "application/json"}
CSV = {"content-type": "text/csv"}
NDJSON = {"content-type": "application/x-ndjson"}
STREAM = {"content-type": "application/vnd.apache.arrow.stream"}
PARQUET = {"content-type": "application/vnd.apache.parquet"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
MULTIPART = {"content-type": "multipart/form-data; boundary=x"}
WORKBOOK = {"content-type": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"}

FEATURES = ["temp", "rainfall", "humidity"]
TARGETS = ["apples", "oranges"]
X = [[73, 67, 43], [91, 88, 64], [87, 134, 58], [102, 43, 37], [69, 96, 70]]
Y = [[56, 70], [81, 101], [119, 133], [22, 37], [103, 119]]


@dataclass(frozen=True)
class Mistake:
    name: str
    content: bytes | str | None = None
    headers: dict[str, str] = field(default_factory=lambda: JSON)
    path: str = "/predict"
    method: str = "POST"
