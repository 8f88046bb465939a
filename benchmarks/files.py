"""The speed of training from a file of 1e7 rows of three features, compared with other libraries.

Each round runs every contender once, in its own process, which is not pinned to a core. Libraries are imported before
the clock starts. Memory is the peak of the process.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from environments import CACHE, environment

ROWS = 10_000_000

MAKE = """
import numpy as np, pyarrow as pa, pyarrow.csv, pyarrow.parquet
random = np.random.default_rng(0)
x = random.normal(size=({rows}, 3)).round(6)
y = (x @ [1.0, 2.0, 3.0] + random.normal(size={rows})).round(6)
table = pa.table(dict(zip("abcy", [*x.T, y])))
pyarrow.csv.write_csv(table, "{folder}/rows.csv")
pyarrow.parquet.write_table(table, "{folder}/rows.parquet")
"""

OURS = """
from pathlib import Path
import os, pyarrow.csv, pyarrow.parquet
from app.data.columns.schema import TableSchema
from app.data.training_rows import TrainingRows
from app.regression.summary_plan import SummaryPlan, summarise_batches
from app.regression.least_squares import fit
from app.regression.solvers import Exact
def work(path, table_format):
    rows = TrainingRows(
        Path(path), table_format, TableSchema.of_numbers(["a", "b", "c"], ["y"]), threads=os.cpu_count()
    )
    summary = summarise_batches(SummaryPlan(("a", "b", "c")), rows.batches(), threads=os.cpu_count())
    return fit(summary[0], Exact()).coef
"""

PANDAS = """
import pandas
from sklearn.linear_model import LinearRegression
def work(path, table_format):
    rows = pandas.read_csv(path) if table_format == "csv" else pandas.read_parquet(path)
    return LinearRegression().fit(rows[["a", "b", "c"]], rows[["y"]]).coef_
"""

POLARS_READ = """
import polars
def work(path, table_format):
    return polars.read_csv(path) if table_format == "csv" else polars.read_parquet(path)
"""

POLARS_OLS = """
import polars, polars_ols
def work(path, table_format):
    rows = polars.read_csv(path) if table_format == "csv" else polars.read_parquet(path)
    x = [polars.col(name) for name in "abc"]
    return rows.select(polars.col("y").least_squares.ols(*x, add_intercept=True, mode="coefficients"))
"""

MEASURE = """
{work}
import json, sys, time
started = time.perf_counter()
work(sys.argv[1], sys.argv[2])
seconds = time.perf_counter() - started
memory = int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) / 1024
print(json.dumps([seconds, memory]))
"""


def compare_files(rounds: int) -> Iterator[str]:
    folder = CACHE / "data"
    if not (folder / "rows.parquet").exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-c", MAKE.format(rows=ROWS, folder=folder)], check=True)
    contenders = {"linserve": (Path(sys.executable), OURS), "pandas + scikit-learn": (Path(sys.executable), PANDAS)}
    if polars := environment("polars", "polars-ols", "numpy"):
        contenders["polars, reading alone"] = (polars / "python", POLARS_READ)
        contenders["polars-ols"] = (polars / "python", POLARS_OLS)
    else:
        yield "polars cannot be installed here."
    for table_format in ("csv", "parquet"):
        path = folder / f"rows.{table_format}"
        measured: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, (python, work) in contenders.items():
                command = [str(python), "-c", MEASURE.format(work=work), str(path), table_format]
                ran = subprocess.run(command, capture_output=True, text=True, check=False)
                if ran.returncode == 0:
                    measured[name].append(json.loads(ran.stdout.splitlines()[-1]))
        yield f"\n{ROWS:,} x 3 from {table_format} ({path.stat().st_size / 1e6:.0f} MB), read and fitted"
        base = statistics.median(seconds for seconds, _ in measured["linserve"])
        for name, runs in measured.items():
            if not runs:
                yield f"  {name:26} does not run here"
                continue
            seconds = statistics.median(seconds for seconds, _ in runs)
            memory = max(memory for _, memory in runs)
            yield f"  {name:26} {seconds:9.2f} s   {seconds / base:6.2f} x ours   {memory:6.0f} MB at most"
