"""Check the order in which a service fsynced and named its files, as recorded by `recorder`.

The order shows what a power failure would lose. A kill cannot show it, because the kernel keeps all writes.
"""

import json
from pathlib import Path

from app.registry.version_file import read_card
from chaos.violation import demand


def check_order(record: Path, models: Path, state: Path) -> int:
    """Return the number of names that files were given. Raises Violation if one came before the fsync that it needs."""
    checkpoints, spool = state / "checkpoints", state / "spool"
    synced: set[Path] = set()  # files whose current content was fsynced
    unsettled: set[tuple[int, Path]] = set()  # a process, and a folder with a new name that it has not fsynced
    uploads: set[str] = set()  # uploads whose bytes and names were fsynced
    linked = named = 0
    for process, act, *names in map(json.loads, record.read_text().splitlines()):
        path, *target = [Path(name) for name in names if name is not None]
        if act == "fsync":
            unsettled.discard((process, path))
            if path == spool:
                uploads |= {file.name for file in synced if file.parent == spool}
            synced.add(path)
            continue
        folder = target[0].parent
        if folder not in (models, checkpoints):
            continue
        if act == "link":
            demand(
                path in synced,
                f"a file in {folder.name} was named before it was fsynced"
                if target[0].suffix
                else f"a name in {target[0].name} was not fsynced",  # a folder was renamed
            )
            synced.discard(path)  # the next file of this name is a new one
        if folder == models:
            demand((process, folder) not in unsettled, f"a name in {folder.name} was not fsynced")
            unsettled.add((process, folder))
            linked += act == "link" and target[0].suffix == ".safetensors"  # and not the folder of markers
        named += 1
    demand(not unsettled, f"a name in {models.name} was not fsynced")
    versions = [read_card(path) for path in models.glob("*.safetensors") if path.name != "000001.safetensors"]
    demand(linked == len(versions), f"{len(versions)} versions were published, {linked} by giving a file its name")
    for card in versions:
        demand(card.upload in uploads, f"the rows of version {card.version} were never fsynced")
    return named
