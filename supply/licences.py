"""`docs/licences.md`: the licence of every package that runs with the service.

`python supply/licences.py` writes it. With `--check` it fails where the page is out of date, a licence is not one of
those allowed, or a version is not the one that constraints.txt pins.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from runtime import SERVICE, Package, runtime_packages

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "licences.md"

# All let a service be run and passed on with them; the LGPL's packages are used as they are, apart from it.
ALLOWED = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC", "LGPL-3.0-only",
    "LLVM-exception", "MIT", "MPL-2.0", "PSF-2.0", "Zlib",
}  # fmt: skip

HEAD = """# Licences

Of all packages that run with the service, written by `make licences` and held up to date by `make check`. The service's
own is Apache-2.0. Compiled libraries inside of numpy, scipy and others have licences of their own, which stand in these
packages' licence files; a build of torch for CUDA brings NVIDIA's libraries with it, under NVIDIA's terms.

| package | version | licence |
|---|---|---|
"""


def page(packages: list[Package]) -> str:
    return HEAD + "".join(f"| {one.name} | {one.version} | {one.licence} |\n" for one in packages)


def faults(packages: list[Package]) -> Iterator[str]:
    if PAGE.read_text() != page(packages):
        yield "docs/licences.md is out of date: make licences"
    pins: dict[str, str] = {canonicalize_name(pin.name): str(pin.specifier) for pin in _pins()}
    for package in packages:
        licences = set(re.findall(r"[\w.+-]+", package.licence)) - {"AND", "OR", "WITH"}
        if not licences or licences - ALLOWED:
            yield f"{package.name}: the licence is {package.licence or 'unknown'}, which is not one of those allowed"
        if pins.get(package.name) != f"=={package.version}":
            yield f"{package.name}: constraints.txt does not pin {package.version}"


def _pins() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def main() -> None:
    packages = [package for package in runtime_packages() if package.name != SERVICE]
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(page(packages))
    elif found := list(faults(packages)):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
