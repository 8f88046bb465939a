"""The size of a workbook's unpacked parts, from the directory of its ZIP archive, before anything is unpacked."""

import struct

from app.data.batch import Source
from app.data.limits.decode_limits import refuse_damage, view_of
from app.errors import BodyTooLarge, InvalidInput

MAX_UNPACKED = 1 << 28  # Bytes of all parts of a workbook.
MAX_PARTS = 10_000
ZIP = b"PK\x03\x04"

_END, _END_BYTES = b"PK\x05\x06", 22  # Signature and length of the record at the archive's end, before a comment.
_MAX_COMMENT = 1 << 16
_ENTRY, _ENTRY_BYTES = b"PK\x01\x02", 46
_ENCRYPTED = 1  # bit of an entry's flags
_DAMAGED = "The workbook is damaged or cut off: its ZIP archive has no directory. Send the whole file."


@refuse_damage(_DAMAGED)
def unpacked_bytes(source: Source) -> int:
    """Return the bytes of the workbook's parts together. A workbook that is not an archive (.xls) is one part.

    Raises BodyTooLarge if they are too large, InvalidInput if the archive cannot be read.
    """
    view = view_of(source)
    if view[: len(ZIP)] != ZIP:
        return _checked(len(view))
    tail = bytes(view[-_END_BYTES - _MAX_COMMENT :])
    end = len(view) - len(tail) + tail.rindex(_END) if _END in tail else -1
    if end < 0:
        raise InvalidInput(_DAMAGED)
    parts, size = struct.unpack_from("<HI", view, end + 10)
    if parts > MAX_PARTS:
        raise InvalidInput(f"The workbook has more than {MAX_PARTS} parts. Save the sheet as CSV.")
    at, total = end - size, 0
    for _ in range(parts):
        if at < 0 or view[at : at + 4] != _ENTRY:
            raise InvalidInput(_DAMAGED)
        (flags,) = struct.unpack_from("<H", view, at + 8)
        if flags & _ENCRYPTED:
            raise InvalidInput("The workbook is encrypted. Save it without a password.")
        unpacked, name, extra, comment = struct.unpack_from("<IHHH", view, at + 24)
        total = _checked(total + unpacked)
        at += _ENTRY_BYTES + name + extra + comment
    return total


def _checked(size: int) -> int:
    if size > MAX_UNPACKED:
        raise BodyTooLarge(
            f"The workbook's parts take more than {MAX_UNPACKED >> 20} MiB when they are unpacked. Save the sheet as "
            "CSV or Parquet, or send it in several parts."
        )
    return size
