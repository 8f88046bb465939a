"""The keys of blobs: valid in every store, and never a path that leaves a folder."""

MAX_KEY_BYTES = 900  # S3 allows 1,024, with the prefix in the URL.
MAX_SEGMENT_BYTES = 255  # Length of a file name.


def check_key(key: str) -> str:
    """Return the key. Raises ValueError if it is not valid in every store.

    Names that begin with a dot are excluded: `..` leaves the folder, and the others are temporary files and locks.
    """
    segments = key.split("/")
    if (
        not key.isprintable()
        or "\\" in key
        or len(key.encode()) > MAX_KEY_BYTES
        or any(not segment or segment[0] == "." or len(segment.encode()) > MAX_SEGMENT_BYTES for segment in segments)
    ):
        raise ValueError(f"{key[:100]!r} is not a key: expected names of printable characters, separated by slashes")
    return key


def check_prefix(prefix: str) -> str:
    """Return the prefix. Raises ValueError if no valid key begins with it."""
    if prefix:
        check_key(prefix.removesuffix("/"))
    return prefix
