"""Distinguishes pyarrow's errors for lack of memory from its errors about a file.

A file must not be refused for lack of memory, but ArrowException is the base class of both.
"""

import errno


def raise_if_memory(error: Exception) -> None:
    """Raise MemoryError if reading failed with `error` because there was no memory, or none for a thread's stack."""
    import pyarrow as pa

    if isinstance(error, MemoryError):  # pyarrow's own is an ArrowException, too
        raise error
    # Only the class is safe to look at: messages about a file's faults quote its values.
    no_thread = type(error) is pa.ArrowException and "Failed to launch worker thread" in str(error)
    if no_thread or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        raise MemoryError(str(error)) from error
