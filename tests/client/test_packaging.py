"""The client as a distribution: what its wheel contains, and what it brings along."""

import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from service import ROOT

HEAVY = {"torch", "fastapi", "pydantic", "numpy", "pandas", "polars", "pyarrow", "scikit-learn", "linserve-server"}


def build(source: Path, folder: Path) -> zipfile.ZipFile:
    """Build a wheel of a copy of the sources, because setuptools leaves files next to them."""
    skipped = shutil.ignore_patterns(".*", "tests", "docs", "build", "*.egg-info", "node_modules", "__pycache__")
    shutil.copytree(source, folder / "source", ignore=skipped)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", folder, folder / "source"], check=True)
    [wheel] = folder.glob("*.whl")
    return zipfile.ZipFile(wheel)


def closure(requirements: list[str]) -> set[str]:
    """Return the names of the packages that are installed with these, and with what these need."""
    found: set[str] = set()
    pending = [Requirement(text) for text in requirements]
    while pending:
        requirement = pending.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if (requirement.marker is None or requirement.marker.evaluate({"extra": ""})) and name not in found:
            found.add(name)
            pending += [Requirement(text) for text in distribution(name).requires or ()]
    return found


@pytest.mark.slow
def test_the_wheel_is_typed_brings_neither_torch_nor_a_web_framework_and_shares_no_file_with_the_service(
    tmp_path: Path,
) -> None:
    (tmp_path / "client").mkdir()
    (tmp_path / "service").mkdir()
    with build(ROOT / "client", tmp_path / "client") as wheel:
        names = wheel.namelist()
        metadata = Parser().parsestr(wheel.read(next(name for name in names if name.endswith("METADATA"))).decode())
        scripts = wheel.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    assert "linserve/py.typed" in names
    assert "linserve/cli/app.py" in names
    assert "linserve/_plans/training.py" in names
    assert scripts.split() == ["[console_scripts]", "linserve", "=", "linserve.cli:main"]
    required = [text for text in metadata.get_all("requires-dist", []) if "extra" not in text]
    assert {Requirement(text).name for text in required} == {"anyio", "httpx", "narwhals", "rich", "typer"}
    assert closure(required) & HEAVY == set()
    with build(ROOT, tmp_path / "service") as wheel:
        others = wheel.namelist()
    [metadata_of_service] = [name for name in others if name.endswith("METADATA")]
    assert {name.partition("/")[0] for name in others} == {"app", metadata_of_service.partition("/")[0]}
    assert not {*names} & {*others}
