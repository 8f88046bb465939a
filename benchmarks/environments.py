"""Virtual environments for other people's packages, made once in a cache folder."""

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

CACHE = Path(__file__).parents[1] / ".bench"


def environment(*packages: str, requirements: Path | None = None, cache: Path = CACHE) -> Path | None:
    """Return the bin folder of an environment with these packages, or None if they cannot be installed.

    With a file of `requirements`, which has to list all of them, the environment is named after the file, and made
    again if the file has changed. Of several processes, one makes it and the others wait.
    """
    options = [] if requirements is None else ["--no-deps", "-r", str(requirements)]
    content = b"" if requirements is None else requirements.read_bytes()
    folder = cache / (packages[0] if requirements is None else requirements.stem)
    done, version = folder / "installed", hashlib.sha256(content).hexdigest()
    cache.mkdir(exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists() or (requirements is not None and done.read_text() != version):
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            # Compiling all modules takes longer than installing them, and most are never imported.
            install = [str(folder / "bin" / "pip"), "install", "--quiet", "--no-compile"]
            if subprocess.run([*install, *options, *packages], check=False).returncode != 0:
                return None
            done.write_text(version)
    return folder / "bin"
