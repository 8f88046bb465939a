"""The package loads little, and its types fit a user's program."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from service import ROOT

import app
import linserve

CLIENT = ROOT / "client"
PROGRAM = """
import asyncio
from pathlib import Path

import polars as pl

from linserve import AsyncClient, Client, InvalidInput, Job, LinserveError, Predictions

def show(job: Job) -> None:
    progress = job.progress
    print(job.status, progress["rows"] if progress else 0)

def work(client: Client, frame: pl.DataFrame, lazy: pl.LazyFrame) -> float:
    predicted = client.predict(frame, model="rents", interval=0.9)
    reveal_type(predicted)
    reveal_type(client.predict(lazy))
    reveal_type(client.predict([[75, 63, 44]], explain=True))
    reveal_type(client.predict([{"temp": 75.0}], missing="null"))
    reveal_type(client.predict("rows.csv"))
    reveal_type(client.predict(Path("rows.csv"), output="out.csv", output_format="parquet"))
    reveal_type(client.train(frame, targets=["rent"], folds=5, columns={"city": {"kind": "category"}}).wait(show))
    rows: Predictions[list[float]] = client.predict([[75, 63, 44]])
    try:
        client.promote("rents", 2)
    except InvalidInput as error:
        print([(detail.row, detail.column) for detail in error.details], error.request_id)
    except LinserveError:
        raise
    return rows[0][0] + float(predicted["rent"].sum())

async def main() -> None:
    async with AsyncClient("http://127.0.0.1:8000", retries=2) as client:
        job = await client.train("rents.csv", targets="rent")
        await job.wait(timeout=10)
        reveal_type(await client.predict(pl.DataFrame()))

asyncio.run(main())
"""
REVEALED = [
    "polars.dataframe.frame.DataFrame",
    "polars.lazyframe.frame.LazyFrame",
    "linserve._results.Predictions[list[float]]",
    "linserve._results.Predictions[dict[str, float]]",
    "bytes",
    "linserve._results.TablePrediction",
    "linserve._jobs.Job",
    "polars.dataframe.frame.DataFrame",
]
WRONG = """
from linserve import Client

client = Client(timeout="long")
client.predict([[1]], intervall=0.9)
client.train("rents.csv", targets=["rent"], solver="magic")
client.card(3)
"""


def loaded_by(statement: str) -> set[str]:
    """Return the packages that a statement loads, without those of the standard library."""
    program = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], cwd=CLIENT, capture_output=True, text=True, check=True)
    return {*done.stdout.split()}


def test_importing_the_package_loads_no_other() -> None:
    heavy = {"anyio", "httpx", "narwhals", "numpy", "pandas", "polars", "pyarrow", "rich", "sklearn", "torch", "typer"}

    assert loaded_by("import linserve") & heavy == set()
    assert loaded_by("import linserve._client, linserve._async_client, linserve._jobs") & heavy == set()
    assert (
        loaded_by("from linserve import Client; Client('http://127.0.0.1:1')") & (heavy - {"anyio", "httpx", "rich"})
        == set()
    )


def test_importing_the_converters_loads_no_package_of_estimators() -> None:
    loaded = loaded_by("import linserve.convert")

    assert loaded & {"sklearn", "statsmodels", "torch", "pandas", "scipy", "httpx"} == set()
    assert "app" not in loaded


def test_versions_of_client_and_service_are_equal() -> None:
    assert linserve.__version__ == app.__version__


def test_the_package_needs_neither_torch_nor_fastapi() -> None:
    project = tomllib.loads((CLIENT / "pyproject.toml").read_text())["project"]

    assert {name.partition(">")[0] for name in project["dependencies"]} == {
        "anyio",
        "httpx",
        "narwhals",
        "rich",
        "typer",
    }
    assert "fastapi" not in str(project)


def test_all_public_names_exist() -> None:
    assert {name for name in linserve.__all__ if not hasattr(linserve, name)} == set()
    with pytest.raises(AttributeError, match="no attribute 'Clint'"):
        linserve.Clint  # noqa: B018


def mypy(folder: Path, program: str) -> str:
    (folder / "program.py").write_text(program)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        f"--cache-dir={ROOT / '.mypy_cache' / 'user'}",
    ]
    done = subprocess.run(
        [*command, "program.py"],
        cwd=folder,
        env={"MYPYPATH": str(CLIENT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def faults(output: str) -> list[int]:
    """Return the lines of the program with errors. mypy reports none in packages that are installed."""
    return [
        int(line.split(":")[1]) for line in output.splitlines() if line.startswith("program.py") and "error:" in line
    ]


@pytest.mark.slow
def test_a_program_of_a_user_passes_mypy_strict_and_a_wrong_one_does_not(tmp_path: Path) -> None:
    output = mypy(tmp_path, PROGRAM)

    revealed = [line.split('"')[1] for line in output.splitlines() if "Revealed type" in line]
    assert revealed == REVEALED, output
    assert faults(output) == []
    assert {*faults(mypy(tmp_path, WRONG))} == {4, 5, 6, 7}
