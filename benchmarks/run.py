"""`make bench`: measure the service and its alternatives in one run, and write RESULTS.md."""

import argparse
import os
import platform
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from disturbed import compare_disturbed
from doors import compare_doors
from files import compare_files
from fit import compare_epochs, compare_fits
from kinds import compare_kinds
from serve import compare_servers

RESULTS = Path(__file__).parent / "RESULTS.md"

HOW_TO_READ = """# Benchmarks

`make bench` wrote this page on {date}, with {cores} cores of {machine}, Python {python} and {rounds} rounds. The
next run overwrites it.

Contenders run in turn within every round, on the same data. Figures are medians of the rounds. Absolute figures depend
on the machine and its load, so compare the ratios. The *floor* is a bare ASGI application on uvicorn, which reads the
same body and responds with fixed bytes. "of the floor" is the throughput divided by the floor's in the same round. The
docstring at the top of each file in `benchmarks/` describes its method.
"""

PARTS: dict[str, Callable[[int], Iterator[str]]] = {
    "Fits from memory": compare_fits,
    "Gradient descent": compare_epochs,
    "Fits from files": compare_files,
    "Fits from words, dates and numbers": compare_kinds,
    "Serving": compare_servers,
    "Serving in other wire formats": compare_doors,
    "Serving during other work": compare_disturbed,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part", choices=PARTS, help="run only this part, and do not write the page")
    options = parser.parse_args()
    page = [
        HOW_TO_READ.format(
            date=datetime.now(UTC).date(),
            cores=os.cpu_count(),
            machine=platform.machine(),
            python=platform.python_version(),
            rounds=options.rounds,
        )
    ]
    for title, part in PARTS.items():
        if options.part not in (None, title):
            continue
        page.append(f"\n## {title}\n\n```")
        for line in part(options.rounds):
            page.append(line)
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
        page.append("```\n")
    if options.part is None:
        RESULTS.write_text("\n".join(page))


if __name__ == "__main__":
    main()
