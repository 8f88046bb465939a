"""The import rules, and the shipped model."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("app.main", ["torch", "dbos", "pyarrow", "scipy", "obstore"]),
        ("app.trainer", ["numpy", "torch"]),  # These read the number of threads when they are imported.
        ("app.regression.least_squares", ["fastapi", "dbos", "pyarrow", "torch"]),
        ("app.regression.solvers", ["fastapi", "pydantic", "dbos", "pyarrow", "scipy", "torch"]),
        ("app.regression.fit", ["fastapi", "pydantic", "dbos", "pyarrow", "torch"]),
        ("app.regression.solvers.descent", ["fastapi", "pydantic", "dbos", "pyarrow"]),
        ("app.training.pipeline", ["fastapi", "dbos", "torch"]),
        ("app.exchange.publishing", ["fastapi", "dbos", "pyarrow", "torch", "onnx"]),
        ("app.regression.linear_model", ["fastapi", "dbos", "pyarrow", "torch"]),
        ("app.regression", ["fastapi", "pydantic", "dbos", "pyarrow", "torch", "scipy"]),
        ("app.regression.estimator", ["fastapi", "pydantic", "dbos", "pyarrow", "torch", "sklearn", "pandas"]),
    ],
)
def test_importing_a_module_does_not_load_the_packages_of_other_rooms(module: str, absent: list[str]) -> None:
    program = f"import sys, {module}; print(*[name for name in {absent} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.split() == []


def test_schemas_are_prepared_and_documented_when_they_are_used_and_not_at_the_start() -> None:
    program = (
        "import app.main; from app.web.schemas import field_docstrings, models, predict, train; "
        "print([schema.__pydantic_complete__ for schema in "
        "(models.ModelView, predict.PredictRequest, train.FileOptions, train.TrainRequest)], "
        "field_docstrings._docstrings_of_module.cache_info().currsize)"
    )

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout == "[False, False, False, False] 0\n"


def test_import_contracts_are_kept() -> None:
    linter = Path(sys.executable).with_name("lint-imports")

    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


def test_rebuild_command_reproduces_the_shipped_model(tmp_path: Path) -> None:
    from app.registry.version_file import read

    subprocess.run([sys.executable, "models/rebuild.py", tmp_path], cwd=ROOT, check=True)

    shipped = read(ROOT / "models" / "crop-yield" / "000001.safetensors")
    rebuilt = read(tmp_path / "crop-yield" / "000001.safetensors")
    assert rebuilt.model.coef == pytest.approx(shipped.model.coef, rel=1e-12)
    assert rebuilt.card.metrics["mse"] == pytest.approx(shipped.card.metrics["mse"], rel=1e-12)
    assert (tmp_path / "crop-yield" / "current").readlink() == Path("000001.safetensors")
