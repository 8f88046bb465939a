"""The speed of predictions in this tree, compared with another checkout of the repository.

    git worktree add /tmp/before COMMIT
    .venv/bin/python benchmarks/before.py /tmp/before --rounds 9

In each round, both trees are measured in turn, the other one first in every second round. Slower means that the median
of the rounds' ratios is below 0.95 and that the interquartile ranges of the two trees do not overlap.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from serve import LOADS, ROOT, SERVER_CORE, Server, arrays, load, missing_tools, ours, running

HERE = Path(__file__).parent
SLOWER = 0.95
NAMES = ("before", "after")


def _tree(folder: Path, name: str, tree: Path) -> Server:
    """Return the service of a tree, with folders of its own."""
    server = ours(folder / name)
    shutil.rmtree(folder / name / "models", ignore_errors=True)
    shutil.copytree(tree / "models", folder / name / "models", symlinks=True)
    command = [sys.executable, "-m", "app.serve", "--log-level", "warning", "--port", str(server.port)]
    # `running` puts the contenders' folder into PYTHONPATH, so the tree comes through the working directory.
    return replace(server, name=name, command=command, folder=tree)


def _alternating(rounds: int, measure: Callable[[str], float]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in NAMES}
    for number in range(rounds):
        for name in NAMES if number % 2 else reversed(NAMES):
            found[name].append(measure(name))
    return found


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def _line(title: str, found: dict[str, list[float]], unit: str, *, more_is_better: bool) -> str:
    """Return the comparison of two lists of figures, one of each per round."""
    before, after = (_quartiles(found[name]) for name in NAMES)
    pairs = zip(found["before"], found["after"], strict=True)
    speed = statistics.median(new / old if more_is_better else old / new for old, new in pairs)
    apart = before[2] < after[0] or after[2] < before[0]
    verdict = "slower" if speed < SLOWER and apart else "not slower"
    figures = "   ".join(
        f"{name} {middle:10,.2f} ({low:,.2f} to {high:,.2f})"
        for name, (low, middle, high) in zip(NAMES, (before, after), strict=True)
    )
    return f"  {title:45} {figures} {unit}   speed {speed:.3f}: {verdict}"


def compare_costs(trees: dict[str, Path], rounds: int) -> Iterator[str]:
    """Compare the processor time per prediction, without connections."""
    costs: dict[str, list[dict[str, tuple[float, float]]]] = {name: [] for name in NAMES}

    def measure(name: str) -> float:
        command = ["taskset", "-c", SERVER_CORE, sys.executable, str(HERE / "answer_cost.py")]
        environment = os.environ | {"PYTHONPATH": str(trees[name])}
        done = subprocess.run(command, cwd=trees[name], env=environment, stdout=subprocess.PIPE, check=True)
        costs[name].append(json.loads(done.stdout))
        return 0.0

    _alternating(rounds, measure)
    yield f"\nprocessor time per prediction, in microseconds: medians of {rounds} rounds (interquartile range)"
    for kind in costs["before"][0]:
        for place, what in enumerate(("event loop", "all threads")):
            found = {name: [run[kind][place] / 1e3 for run in runs] for name, runs in costs.items()}
            yield _line(f"{kind}, {what}", found, "us", more_is_better=False)


def compare_throughput(trees: dict[str, Path], rounds: int) -> Iterator[str]:
    """Compare the requests per second over HTTP."""
    if missing := missing_tools():
        yield missing
        return
    yield f"\nrequests per second over HTTP: medians of {rounds} rounds (interquartile range)"
    with tempfile.TemporaryDirectory() as name:
        servers = {each: _tree(Path(name), each, tree) for each, tree in trees.items()}
        for kind in LOADS[:5]:
            rows = np.random.default_rng(0).uniform(40, 130, size=(kind.rows, 3)).round(2).tolist()
            body, connections = (kind.body or arrays)(rows), kind.connections

            def measure(each: str, body: bytes = body, connections: int = connections) -> float:
                with running(servers[each], body):
                    load(servers[each], body, connections, seconds=1)
                    return load(servers[each], body, connections).requests

            yield _line(kind.title, _alternating(rounds, measure), "requests/s", more_is_better=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", choices=("costs", "throughput"))
    options = parser.parse_args()
    trees = {"before": options.before.absolute(), "after": ROOT}
    parts = {"costs": compare_costs, "throughput": compare_throughput}
    for name, part in parts.items():
        if options.only in (None, name):
            for line in part(trees, options.rounds):
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
