"""The command `linserve-server migrate`: copy all models between a models folder and a store."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from app.errors import LinserveError
from app.migration.copy import migrate
from app.migration.places import MigrationFailed, Place, open_place
from app.migration.records import LEFT, NO_STATE, copy_records
from app.storage.folder_store import FolderStore
from app.storage.store import BlobChanged, BlobNotFound, Store


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
    state = "state folder of the service that uses the models folder, for its aliases and recorded evaluations"
    parser.add_argument("--from-state", type=Path, metavar="FOLDER", help=state)
    parser.add_argument("--to-state", type=Path, metavar="FOLDER", help=state)
    given = parser.parse_args(arguments)
    try:
        source, target = open_place(given.source), open_place(given.target)
        migrate(source, target, _report)
        stores = _store_of(source, given.from_state), _store_of(target, given.to_state)
        if stores[0] is None or stores[1] is None:
            _report(NO_STATE)
        else:
            copy_records(stores[0], stores[1], _report)
        _report(LEFT)
    except (MigrationFailed, LinserveError, BlobChanged, BlobNotFound, OSError, KeyboardInterrupt) as error:
        sys.stderr.write(f"{_reason(error)}\n")
        return 1
    return 0


def _store_of(place: Place, state: Path | None) -> Store | None:
    """Return where a service keeps aliases and recorded evaluations, or None if that is not known."""
    if place.store is not None or state is None:
        return place.store
    if not state.is_dir():
        raise MigrationFailed(f"There is no folder {state}.")
    return FolderStore(state)


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
