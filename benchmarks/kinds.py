"""The speed of training from a CSV of 1e7 rows with two categories, a date and a number, compared with other libraries.

Each round runs every contender once, in its own process, which is not pinned to a core. A contender that takes more
than SLOW_SECONDS runs only in the first round. Libraries are imported before the clock starts. Memory is the peak of
the process. All contenders must find the same coefficient of the number. Ours is a whole training: it finds the kinds,
fits the model and publishes a version.
"""

import json
import math
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from environments import CACHE, environment

ROWS = 10_000_000
SLOW_SECONDS = 60.0

MAKE = """
import numpy as np, pyarrow as pa, pyarrow.csv
random = np.random.default_rng(0)
shop, item = random.integers(5, size={rows}), random.integers(20, size={rows})
day, price = random.integers(18_000, 20_000, size={rows}), random.normal(size={rows}).round(6)
y = (price + 0.1 * shop - 0.2 * item + 0.001 * day + random.normal(size={rows})).round(6)
words = lambda prefix, codes: pa.array([f"{{prefix}}{{n:02}}" for n in range(codes.max() + 1)]).take(pa.array(codes))
columns = [words("shop", shop), words("item", item), pa.array(day.astype("int32")).cast(pa.date32()), price, y]
pyarrow.csv.write_csv(pa.table(columns, names=["shop", "item", "day", "price", "y"]), "{path}")
"""

OURS = """
import os, tempfile
from pathlib import Path
from app.data.columns.options import ReadingOptions
from app.registry.folder.publisher import FolderPublisher
from app.regression.solvers import Exact
from app.training.pipeline import TrainerContext, train
from app.training.planner import plan_file
from app.training.progress import ProgressReporter
from app.training.request import TrainingRequest
from app.training.uploads import UploadStore
def work(path):
    folder = Path(tempfile.mkdtemp())
    (folder / "models").mkdir()
    spool = UploadStore(folder / "spool")
    context = TrainerContext(FolderPublisher(folder / "models"), spool, folder / "checkpoints", threads=os.cpu_count())
    upload = spool.new()
    with spool.open_new(upload):
        spool.path(upload).unlink()
    spool.path(upload).symlink_to(path)
    draft = TrainingRequest(
        model="kinds", upload=upload, format="csv", features=(), targets=("y",), solver=Exact(), promote="always",
        fingerprint="", reading=ReadingOptions(),
    )
    request = plan_file(draft, spool.path(upload), context.registry, 1 << 40)
    train(request, None, context, ProgressReporter(lambda *_: None, lambda: False))
    model = context.registry.current("kinds").model
    return model.coef[0][model.features.index("price")]
"""

STATSMODELS = """
import pandas, statsmodels.formula.api as formula
def work(path):
    rows = pandas.read_csv(path, parse_dates=["day"])
    rows["day"] = (rows["day"] - pandas.Timestamp("1970-01-01")) / pandas.Timedelta(days=1)
    return formula.ols("y ~ C(shop) + C(item) + day + price", rows).fit().params["price"]
"""

POLARS = """
import numpy, polars
def work(path):
    rows = polars.read_csv(path, try_parse_dates=True).with_columns(polars.col("day").to_physical())
    y = rows.drop_in_place("y").to_numpy()
    design = rows.to_dummies(["shop", "item"], drop_first=True)
    x = design.select(polars.all().cast(polars.Float64)).to_numpy()
    x = x - x.mean(axis=0)
    coefficients = numpy.linalg.solve(x.T @ x, x.T @ (y - y.mean()))
    return coefficients[design.columns.index("price")]
"""

MEASURE = """
{work}
import json, sys, time
started = time.perf_counter()
price = work(sys.argv[1])
seconds = time.perf_counter() - started
memory = int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) / 1024
print(json.dumps([seconds, memory, float(price)]))
"""


def compare_kinds(rounds: int) -> Iterator[str]:
    path = table_of(ROWS)
    contenders = {
        "linserve": (Path(sys.executable), OURS),
        "pandas + statsmodels' formula": (Path(sys.executable), STATSMODELS),
    }
    if polars := environment("polars", "polars-ols", "numpy"):
        contenders["polars + normal equations"] = (polars / "python", POLARS)
    else:
        yield "polars cannot be installed here."
    measured: dict[str, list[tuple[float, float, float]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, (python, work) in contenders.items():
            is_slow = bool(measured[name]) and measured[name][0][0] > SLOW_SECONDS
            if not is_slow and (result := measure(python, work, path)):
                measured[name].append(result)
    yield f"\n{ROWS:,} rows of two categories, a date and a number from CSV ({path.stat().st_size / 1e6:.0f} MB)"
    base = statistics.median(seconds for seconds, _, _ in measured["linserve"])
    right = measured["linserve"][0][2]
    for name, runs in measured.items():
        if not runs:
            yield f"  {name:30} does not run here"
            continue
        assert all(math.isclose(price, right, rel_tol=1e-6) for _, _, price in runs), name
        seconds = statistics.median(seconds for seconds, _, _ in runs)
        memory = max(memory for _, memory, _ in runs)
        yield f"  {name:30} {seconds:9.2f} s   {seconds / base:6.2f} x ours   {memory:6.0f} MB at most"


def table_of(rows: int) -> Path:
    """Return the file, which is made once in the cache folder."""
    path = CACHE / "data" / f"kinds-{rows}.csv"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = path.with_suffix(".new")
        subprocess.run([sys.executable, "-c", MAKE.format(rows=rows, path=made)], check=True)
        made.rename(path)
    return path


def measure(python: Path, work: str, path: Path) -> tuple[float, float, float] | None:
    """Return seconds, peak MB and the coefficient of the number, or None if the contender does not run here."""
    ran = subprocess.run(
        [str(python), "-c", MEASURE.format(work=work), str(path)], capture_output=True, text=True, check=False
    )
    if ran.returncode != 0:
        return None
    seconds, memory, price = json.loads(ran.stdout.splitlines()[-1])
    return seconds, memory, price
