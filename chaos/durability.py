"""The order in which a service's files were synchronised and named, from what `recorder` noted.

No kill shows what a power cut would take, for the kernel keeps what was written; the order does.
"""

from pathlib import Path

from chaos.violation import demand


def check_order(record: Path, models: Path, state: Path) -> int:
    """How many names were given in the right order. Raises Violation for one that was not."""
    acts = [(act, int(inode), int(folder)) for act, inode, folder in map(str.split, record.read_text().splitlines())]
    kept = {folder.stat().st_ino: folder for folder in (models, state / "checkpoints")}
    named = 0
    for place, (act, inode, folder) in enumerate(acts):
        if act == "fsync" or folder not in kept:
            continue
        where = kept[folder].name
        if act == "link":
            demand(("fsync", inode, 0) in acts[:place], f"a file in {where} was given its name before it was on disk")
        if kept[folder] == models:
            demand(("fsync", folder, 0) in acts[place:], f"a name in {where} was not brought to disk")
        named += 1
    versions = len(list(models.glob("*.safetensors"))) - 1  # without the one that was there
    links = sum(act == "link" and kept.get(folder) == models for act, _, folder in acts)
    demand(links == versions, f"{versions} versions were published, {links} of them by giving a finished file its name")
    spool = (state / "spool").stat().st_ino
    demand(acts.count(("fsync", spool, 0)) >= versions, "an upload's name was not brought to disk")
    return named
