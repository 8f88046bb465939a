"""The copy of what belongs to models and is not in their versions: aliases and recorded evaluations.

A service with a models folder keeps these in its state folder, and one with a store in the store.
"""

import contextlib
from collections.abc import Callable

from app.storage.store import BlobChanged, BlobNotFound, Store

PREFIXES = ("aliases/", "monitoring/evaluations/")
NO_STATE = (
    "Aliases and recorded evaluations were not copied. A service with a models folder has them in its state folder: "
    "give it as --from-state or --to-state."
)
LEFT = (
    "Not copied: jobs, recorded predictions with their outcomes, traffic splits, and summaries of served rows. Jobs, "
    "predictions and outcomes stay in the state folder or the database, and are used from there."
)


def copy_records(source: Store, target: Store, report: Callable[[str], None] = print) -> None:
    """Copy aliases and recorded evaluations, and overwrite nothing. It can be repeated.

    Raises StoreUnavailable, OSError.
    """
    copied = 0
    for prefix in PREFIXES:
        for info in list(source.list_blobs(prefix)):
            with contextlib.suppress(BlobNotFound):  # deleted meanwhile
                copied += _copy(source, target, info.key, report)
    report(f"Aliases and recorded evaluations copied: {copied}.")


def _copy(source: Store, target: Store, key: str, report: Callable[[str], None]) -> bool:
    """Return True if the blob was not there before."""
    content = source.get(key).content
    try:
        target.put_if_absent(key, content)
    except BlobChanged:
        if target.get(key).content != content:
            report(f"Warning: {target.url}/{key} differs from {source.url}/{key}. It was not changed.")
        return False
    return True
