"""Imports and exports of models: one file for each format, listed in two tables.

Importing this loads none of the libraries of the formats.
"""

from app.exchange.base import Export, Import
from app.exchange.json_reader import JsonImport
from app.exchange.json_writer import JsonExport
from app.exchange.onnx.reader import OnnxImport
from app.exchange.onnx.writer import OnnxExport
from app.exchange.pmml.reader import PmmlImport
from app.exchange.pmml.writer import PmmlExport
from app.exchange.python_writer import PythonExport
from app.exchange.safetensors_reader import SafetensorsImport
from app.exchange.safetensors_writer import SafetensorsExport
from app.exchange.sql.writer import SqlExport
from app.exchange.version_file_writer import LinserveExport
from app.exchange.version_reader import VersionImport
from app.exchange.xlsx.writer import XlsxExport

__all__ = ["EXPORTS", "IMPORTS"]

EXPORTS: tuple[Export, ...] = (
    SafetensorsExport(),
    OnnxExport(),
    PmmlExport(),
    SqlExport(),
    PythonExport(),
    XlsxExport(),
    JsonExport(),
    LinserveExport(),
)
# The first format that matches a content reads it. VersionImport precedes SafetensorsImport, whose format it uses.
IMPORTS: tuple[Import, ...] = (JsonImport(), VersionImport(), SafetensorsImport(), PmmlImport(), OnnxImport())
