"""The speed of the exact fit, compared with other libraries.

Each round runs every contender once, in turn, on the same rows in memory. The results are the median of each contender,
and its ratio to ours. All contenders must find the same coefficients. Contenders use all cores, except the one that is
ours on one core. scikit-learn-intelex has an environment and a process of its own, with the same rows. Memory is the
growth of the peak memory of a fresh process during the fit.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from environments import environment
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression, Ridge

from app.regression.least_squares import fit
from app.regression.solvers import Exact, GradientDescent
from app.regression.solvers.descent import gradient_descent
from app.regression.summaries import available_threads, summarise
from app.regression.summary_plan import SummaryPlan, summarise_batches
from app.regression.training_batch import TrainingBatch

Array = NDArray[np.float64]
SIZES = [(15, 3), (1_000_000, 10), (10_000_000, 3), (200_000, 200)]
TARGETS = 2


def rows_of(count: int, features: int) -> tuple[Array, Array]:
    random = np.random.default_rng(0)
    x = random.normal(size=(count, features))
    return x, x @ random.normal(size=(features, TARGETS)) + random.normal(size=(count, TARGETS))


def ours(x: Array, y: Array, threads: int | None = None) -> Array:
    plan = SummaryPlan(tuple(map(str, range(x.shape[1]))))
    summary = summarise_batches(plan, [TrainingBatch(x, y)], threads=threads or available_threads())
    return fit(summary[0], Exact()).coef


def ours_on_one_core(x: Array, y: Array) -> Array:
    return ours(x, y, threads=1)


def linear_regression(x: Array, y: Array) -> Array:
    return np.asarray(LinearRegression().fit(x, y).coef_)


def ridge_cholesky(x: Array, y: Array) -> Array:
    return np.asarray(Ridge(alpha=1e-9, solver="cholesky").fit(x, y).coef_)


def numpy_lstsq(x: Array, y: Array) -> Array:
    return np.asarray(np.linalg.lstsq(np.column_stack([np.ones(len(x)), x]), y, rcond=None)[0][1:].T)


def torch_lstsq(x: Array, y: Array) -> Array:
    design = torch.from_numpy(np.column_stack([np.ones(len(x)), x]))
    return np.asarray(torch.linalg.lstsq(design, torch.from_numpy(y)).solution[1:].T)


CONTENDERS: dict[str, Callable[[Array, Array], Array]] = {
    "linserve": ours,
    "linserve, one core": ours_on_one_core,
    "sklearn LinearRegression": linear_regression,
    "sklearn Ridge(cholesky)": ridge_cholesky,
    "numpy lstsq": numpy_lstsq,
    "torch.linalg.lstsq": torch_lstsq,
}


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compare_fits(rounds: int) -> Iterator[str]:
    intelex = environment("scikit-learn-intelex", "numpy")
    for count, features in SIZES:
        x, y = rows_of(count, features)
        with _timed_contenders(intelex, x, y) as contenders:
            times: dict[str, list[float]] = {name: [] for name in contenders}
            for round_ in range(rounds + 1):
                for name, contender in contenders.items():
                    taken = contender()
                    if round_ > 0:  # the first one warms up
                        times[name].append(taken)
        yield f"\n{count:,} x {features}, {TARGETS} targets, float64, from memory"
        base = statistics.median(times["linserve"])
        for name, seconds_of_rounds in times.items():
            median = statistics.median(seconds_of_rounds)
            has_memory = count > 1000 and name in CONTENDERS  # noqa: PLR2004
            memory = f"{memory_of(name, count, features):6.0f} MB more" if has_memory else ""
            yield f"  {name:26} {median:9.4f} s   {median / base:6.2f} x ours   {memory}"
        if intelex is None:
            yield "  scikit-learn-intelex could not be installed."


@contextmanager
def _timed_contenders(intelex: Path | None, x: Array, y: Array) -> Iterator[dict[str, Callable[[], float]]]:
    """Yield calls that each fit once, check the coefficients and return the seconds."""
    expected = ours(x, y)

    def timed(name: str) -> float:
        started = time.perf_counter()
        coef = CONTENDERS[name](x, y)
        taken = time.perf_counter() - started
        assert np.allclose(coef, expected, rtol=1e-5, atol=1e-6), name
        return taken

    contenders: dict[str, Callable[[], float]] = {name: partial(timed, name) for name in CONTENDERS}
    if intelex is None:
        yield contenders
        return
    program = Path(__file__).parent / "contenders" / "intelex.py"
    command = [str(intelex / "python"), str(program), *map(str, (*x.shape, y.shape[1]))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:

        def timed_there() -> float:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("fit\n")
            taken, coef = json.loads(process.stdout.readline())
            assert np.allclose(coef, expected, rtol=1e-5, atol=1e-6), "scikit-learn-intelex"
            return float(taken)

        yield {**contenders, "scikit-learn-intelex": timed_there}
        process.communicate()  # closes its input, which ends it


def memory_of(name: str, count: int, features: int) -> float:
    command = [sys.executable, __file__, "--memory", name, str(count), str(features)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure_memory(name: str, count: int, features: int) -> None:
    x, y = rows_of(count, features)
    CONTENDERS[name](x[:1000], y[:1000])
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = peak()
    CONTENDERS[name](x, y)
    sys.stdout.write(str(peak() - before))


def peak() -> float:
    """Return the peak memory of this process, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def compare_epochs(rounds: int) -> Iterator[str]:
    count = 1_000_000
    x, y = rows_of(count, 3)
    statistics_of_rows = summarise([TrainingBatch(x, y)])
    part = 100_000

    def descent(epochs: int) -> float:
        batches = GradientDescent(epochs=epochs, batch_size=1024, learning_rate=1e-3, device="cpu")
        return seconds(lambda: gradient_descent(TrainingBatch(x, y), statistics_of_rows, batches))

    descent(1)  # the first run of torch is slow
    notebook_epoch(x[:5000], y[:5000])
    ours_, loop = [], []
    for _ in range(rounds):
        ours_.append((descent(6) - descent(1)) / 5)
        loop.append(seconds(lambda: notebook_epoch(x[:part], y[:part])) * count / part)
    ratio = statistics.median(theirs / mine for theirs, mine in zip(loop, ours_, strict=True))
    yield f"\nOne epoch of gradient descent, {count:,} x 3, batches of 1024"
    yield f"  linserve                   {statistics.median(ours_):9.4f} s"
    yield f"  the notebook's DataLoader  {statistics.median(loop):9.4f} s   {ratio:6.1f} x ours   (from {part:,} rows)"
    yield "\nA thousand epochs of full batches, from the statistics"
    for rows in (15, 1_000_000):
        few = summarise([TrainingBatch(x[:rows], y[:rows])])
        many = GradientDescent(epochs=1000, learning_rate=1e-3, device="cpu")
        median = statistics.median(seconds(lambda: gradient_descent(None, few, many)) for _ in range(rounds))  # noqa: B023
        yield f"  {rows:9,} rows             {median:9.4f} s"


def notebook_epoch(x: Array, y: Array) -> None:
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    loader = torch.utils.data.DataLoader(dataset, 1024, shuffle=True)
    model = torch.nn.Linear(x.shape[1], y.shape[1], dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for inputs, targets in loader:
        loss = torch.nn.functional.mse_loss(model(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()


if __name__ == "__main__":
    # Started by `memory_of`.
    measure_memory(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
