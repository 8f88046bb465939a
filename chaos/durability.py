"""The order in which a service fsynced and named its files, from the records of `recorder`.

A kill cannot show what a power failure would lose, because the kernel keeps all writes. The order can.
"""

import json
from pathlib import Path

from app.registry.version_file import read_card
from chaos.violation import demand


def check_order(record: Path, models: Path, state: Path) -> int:
    """Return how many names were given in the right order. Raises Violation for one that was not."""
    checkpoints, spool = state / "checkpoints", state / "spool"
    synced: set[Path] = set()  # files as they are now
    unsettled: set[tuple[int, Path]] = set()  # processes, and the folders in which they gave a name
    uploads: set[str] = set()  # whose bytes and names are both on disk
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
                f"a file in {folder.name} was given its name before it was on disk"
                if target[0].suffix
                else f"a name in {target[0].name} was not brought to disk",  # of a folder that was made elsewhere
            )
            synced.discard(path)  # the next of its name is another
        if folder == models:
            demand((process, folder) not in unsettled, f"a name in {folder.name} was not brought to disk")
            unsettled.add((process, folder))
            linked += act == "link" and target[0].suffix == ".safetensors"  # and not the folder of markers
        named += 1
    demand(not unsettled, f"a name in {models.name} was not brought to disk")
    versions = [read_card(path) for path in models.glob("*.safetensors") if path.name != "000001.safetensors"]
    demand(linked == len(versions), f"{len(versions)} versions were published, {linked} by giving a file its name")
    for card in versions:
        demand(card.upload in uploads, f"the rows of version {card.version} were never brought to disk")
    return named
