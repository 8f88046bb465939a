"""pyarrow, imported when it is first used, because the web process starts without it."""

import errno
from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["pa", "raise_if_memory"]


class _Pyarrow:
    """Stands in for the package and its modules: `pa.array`, `pa.compute.sum`."""

    def __getattr__(self, name: str) -> Any:
        package = import_module("pyarrow")
        value = getattr(package, name) if hasattr(package, name) else import_module(f"pyarrow.{name}")
        setattr(self, name, value)  # The next look-up does not call this method.
        return value


if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = _Pyarrow()


def raise_if_memory(error: Exception) -> None:
    """Raise MemoryError if reading failed with `error` because there was no memory, or none for a thread's stack.

    A file must not be refused for lack of memory, but ArrowException is also the base class of these errors.
    """
    if isinstance(error, MemoryError):  # pyarrow's own is an ArrowException, too
        raise error
    # Only the class is safe to look at: messages about a file's faults quote its values.
    no_thread = type(error) is pa.ArrowException and "Failed to launch worker thread" in str(error)
    if no_thread or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        raise MemoryError(str(error)) from error
