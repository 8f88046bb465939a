"""Virtual environments of the contenders, made once in a cache folder."""

import subprocess
import sys
from pathlib import Path

CACHE = Path(__file__).parents[1] / ".bench"


def environment(*packages: str) -> Path | None:
    """Return the bin folder of an environment with these packages, or None if they cannot be installed."""
    folder = CACHE / packages[0]
    done = folder / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        installed = subprocess.run([folder / "bin" / "pip", "install", "--quiet", *packages], check=False)
        if installed.returncode != 0:
            return None
        done.touch()
    return folder / "bin"
