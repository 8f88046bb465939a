"""Programs of users of other tools, each run by a Python that has the package of that tool and nothing of ours."""

import os
import subprocess
from pathlib import Path

from environments import environment
from service import ROOT

REQUIREMENTS = ROOT / "tests" / "protocols" / "requirements"
CACHE = ROOT / ".protocols"
SECONDS = 120.0  # Longest time that a program may take. It matters only if a test fails.
# Variables of this process that would change how the program runs.
OURS = ("PYTHON", "LINSERVE_", "UVICORN_", "COVERAGE_")


def python_with(name: str) -> Path:
    """Return a Python with the packages in `requirements/NAME.txt`. The first call installs them."""
    requirements = REQUIREMENTS / f"{name}.txt"
    found = environment(requirements=requirements, cache=CACHE)
    assert found is not None, f"{requirements} cannot be installed"
    return found / "python"


def run_program(python: Path, program: str, folder: Path, **variables: str) -> str:
    """Run the text of a program in this folder, with these environment variables. Return what it printed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    done = subprocess.run(
        [python, "-c", program],
        cwd=folder,
        env=inherited | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, f"{program}\n{done.stdout}\n{done.stderr}"
    return done.stdout
