"""`make bench`: everything that is said to be fast, beside what it is compared with, in one run; to RESULTS.md."""

import argparse
import os
import platform
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from disturbed import compare_disturbed
from files import compare_files
from fit import compare_epochs, compare_fits
from serve import compare_servers

RESULTS = Path(__file__).parent / "RESULTS.md"

HOW_TO_READ = """# How fast it is

Made by `make bench`, which overwrites this page: on {date}, with {cores} cores of {machine}, Python {python}
and {rounds} rounds.

Contenders run in turn within every round, on the same data; figures are medians of the rounds. Absolute figures depend
on the machine and on what else it does, ratios much less: compare those. "of the floor" is the throughput as a share of
a bare ASGI app's on the same server (uvicorn) in the same round, which reads the same body and answers fixed bytes.
What each part does in detail stands at the head of its file in `benchmarks/`.
"""

PARTS: dict[str, Callable[[int], Iterator[str]]] = {
    "Fits from memory": compare_fits,
    "Gradient descent": compare_epochs,
    "Fits from files": compare_files,
    "Serving": compare_servers,
    "Serving beside other work": compare_disturbed,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part", choices=PARTS, help="only this one, without writing the page")
    asked = parser.parse_args()
    page = [
        HOW_TO_READ.format(
            date=datetime.now(UTC).date(),
            cores=os.cpu_count(),
            machine=platform.machine(),
            python=platform.python_version(),
            rounds=asked.rounds,
        )
    ]
    for title, part in PARTS.items():
        if asked.part not in (None, title):
            continue
        page.append(f"\n## {title}\n\n```")
        for line in part(asked.rounds):
            page.append(line)
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
        page.append("```\n")
    if asked.part is None:
        RESULTS.write_text("\n".join(page))


if __name__ == "__main__":
    main()
