"""What runs with the service: the packages that `make run` installs, as they are installed here."""

from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distribution
from typing import Any, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SERVICE = "linserve-server"

# Of torch's builds for CUDA, which the service does not need.
_CUDA = ("cuda-", "nvidia-", "triton")

# What the licence files say of packages whose metadata do not say it in SPDX's terms.
_READ = {
    "jinja2": "BSD-3-Clause",
    "mpmath": "BSD-3-Clause",
    "pysimdjson": "MIT AND Apache-2.0",  # simdjson is in it
    "safetensors": "Apache-2.0",
    "scipy": "BSD-3-Clause",
    "sympy": "BSD-3-Clause",
    "uvloop": "MIT OR Apache-2.0",
}


class Package(NamedTuple):
    name: str
    version: str
    licence: str  # an SPDX expression, or nothing
    needs: frozenset[str]  # names


def runtime_packages() -> list[Package]:
    """The service and all that it needs, by name."""
    found: dict[str, Package] = {}
    waiting = [Requirement(SERVICE)]
    while waiting:
        asked = waiting.pop()
        name = canonicalize_name(asked.name)
        installed = distribution(name)
        said: dict[str, Any] = installed.metadata.json
        needs = list(_needs(installed, asked.extras))
        known = found[name].needs if name in found else frozenset()
        package = Package(
            name,
            installed.version.partition("+")[0],  # without torch's word for its build
            said.get("license_expression") or _READ.get(name) or said.get("license", ""),
            known | {canonicalize_name(need.name) for need in needs},
        )
        if found.get(name) != package:
            found[name] = package
            waiting += needs
    return [found[name] for name in sorted(found)]


def _needs(installed: Distribution, extras: Iterable[str]) -> Iterator[Requirement]:
    for requirement in map(Requirement, installed.requires or []):
        marker = requirement.marker
        applies = marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))
        if applies and not requirement.name.startswith(_CUDA):
            yield requirement
