"""Tasks and results as bytes, so that nothing is pickled between the trainer and its processes."""

import re
from dataclasses import fields, replace
from typing import Any, Self

import msgspec
import numpy as np

from app import errors
from app.errors import FieldError, LinserveError
from app.regression import errors as fit_errors
from app.regression.errors import ColumnOutOfRange, FitError, InvalidData
from app.regression.sufficient_statistics import SufficientStatistics
from app.training.fragments.split import FragmentFile, LocalFile
from app.training.sources import SourceFile

_ROW = re.compile(r"\b[Rr]ow \d+\b")
_ARRAY = 1  # code of an array in MessagePack


class FileRecord(msgspec.Struct, frozen=True):
    """A file on this machine, or one of a source."""

    path: str | None = None
    source: SourceFile | None = None

    @classmethod
    def of(cls, file: FragmentFile) -> Self:
        return cls(source=file) if isinstance(file, SourceFile) else cls(path=str(file.source()))

    @property
    def file(self) -> FragmentFile:
        if self.source is not None:
            return self.source
        assert self.path is not None
        return LocalFile(self.path)


class Fault(msgspec.Struct, frozen=True, tag=True):
    """An error of a fragment."""

    error: str
    message: str
    details: tuple[FieldError, ...] = ()
    column: int | None = None  # of a ColumnOutOfRange of the mathematics
    is_fit_error: bool = False

    @classmethod
    def of(cls, error: LinserveError | FitError) -> Self:
        # The nearest class that has a name there.
        modules = (errors.__name__, fit_errors.__name__)
        name = next(base.__name__ for base in type(error).__mro__ if base.__module__ in modules)
        if isinstance(error, LinserveError):
            return cls(name, error.message, error.details)
        column = error.column if isinstance(error, ColumnOutOfRange) else None
        return cls(name, error.message, column=column, is_fit_error=True)

    def raised(self, file: str = "") -> LinserveError | FitError:
        """Return the error, with the name of the file if it is not empty."""
        if self.is_fit_error:
            return InvalidData(self.message) if self.column is None else getattr(fit_errors, self.error)(self.column)
        message, details = self.message, self.details
        if file and file not in message:
            is_of_cells = details and all(entry.row and entry.column is not None for entry in details)
            message = _ROW.sub(lambda match: f"{match[0]} of {file}", message) if is_of_cells else f"{file}: {message}"
            details = tuple(_in_file(entry, file) for entry in details)
        error_type = getattr(errors, self.error)
        error: LinserveError = error_type.__new__(error_type)
        LinserveError.__init__(error, message, details)
        return error


def _in_file(detail: FieldError, file: str) -> FieldError:
    return detail if detail.row is None else replace(detail, file=file)


def pack(value: Any) -> bytes:
    """Return a task or a result as bytes."""
    return msgspec.msgpack.encode(value, enc_hook=_packed)


def unpack(content: bytes, type_: Any) -> Any:
    """Return the task or the result of this type that `pack` made into bytes."""
    return msgspec.msgpack.decode(content, type=type_, dec_hook=_unpacked, ext_hook=_array)


def statistics_record(statistics: SufficientStatistics) -> dict[str, Any]:
    return {field.name: getattr(statistics, field.name) for field in fields(statistics)}


def statistics_of(record: dict[str, Any]) -> SufficientStatistics:
    return SufficientStatistics(**record)


def _packed(value: object) -> Any:
    if isinstance(value, slice):
        return [value.start, value.stop]
    if isinstance(value, np.ndarray):
        head = msgspec.msgpack.encode((value.dtype.str, value.shape))
        return msgspec.msgpack.Ext(
            _ARRAY, len(head).to_bytes(4, "little") + head + np.ascontiguousarray(value).tobytes()
        )
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not packed.")


def _unpacked(type_: type, value: Any) -> Any:
    if type_ is slice:
        return slice(*value)
    raise TypeError(f"{type_.__name__} is not unpacked.")


def _array(code: int, data: memoryview) -> Any:
    if code != _ARRAY:
        raise ValueError("There is no such extension.")
    end = 4 + int.from_bytes(data[:4], "little")
    dtype, shape = msgspec.msgpack.decode(data[4:end], type=tuple[str, tuple[int, ...]])
    return np.frombuffer(bytes(data[end:]), dtype).reshape(shape).copy()
