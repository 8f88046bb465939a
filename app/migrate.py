"""The command `linserve-server migrate`: copy all models between a models folder and a store."""

import argparse
import sys
from collections.abc import Sequence

from app.errors import LinserveError
from app.migration.copy import migrate
from app.migration.places import MigrationFailed, open_place
from app.storage.store import BlobChanged, BlobNotFound


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(
        prog="linserve-server migrate",
        description="Copy all models between a models folder and a store. It can be repeated, and compares every "
        "version with its copy. Credentials are those of the environment, as for LINSERVE_STORAGE.",
    )
    place = "models folder, or URL of a store: s3://BUCKET/PREFIX, gs://, az:// or file:///"
    parser.add_argument("--from", dest="source", required=True, metavar="PLACE", help=place)
    parser.add_argument("--to", dest="target", required=True, metavar="PLACE", help=place)
    given = parser.parse_args(arguments)
    try:
        migrate(open_place(given.source), open_place(given.target), _report)
    except (MigrationFailed, LinserveError, BlobChanged, BlobNotFound, OSError, KeyboardInterrupt) as error:
        sys.stderr.write(f"{_reason(error)}\n")
        return 1
    return 0


def _reason(error: BaseException) -> str:
    if isinstance(error, MigrationFailed):
        return str(error)
    if isinstance(error, BlobChanged):
        reason = f"{error} Others write to this store."
    elif isinstance(error, BlobNotFound):
        reason = f"{error} was deleted meanwhile."
    elif isinstance(error, OSError):
        reason = f"{error.filename2 or error.filename or 'The folder'}: {error.strerror}."
    else:
        reason = error.message if isinstance(error, LinserveError) else "Interrupted."
    return f"{reason} Repeat the command to continue."


def _report(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
