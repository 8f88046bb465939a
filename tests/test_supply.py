"""What runs with the service: its licences, its versions, its bill of materials, its known vulnerabilities."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence

import pytest
from audit import findings
from cyclonedx.output.json import JsonV1Dot6
from licences import faults
from runtime import SERVICE, Package, runtime_packages
from sbom import bill
from service import ROOT

PACKAGES = runtime_packages()


def needed(packages: Sequence[Package] = PACKAGES) -> list[Package]:
    return [package for package in packages if package.name != SERVICE]


def test_every_licence_is_listed_and_allowed_and_every_version_pinned() -> None:
    assert {"dbos", "numpy", "psycopg-binary", "starlette", "torch", "uvicorn"} <= {one.name for one in needed()}
    assert list(faults(needed())) == []


@pytest.mark.parametrize("licence", ["AGPL-3.0-only", "MIT AND SSPL-1.0", "Proprietary", ""])
def test_a_licence_that_is_not_allowed_is_found(licence: str) -> None:
    first, *others = needed()
    found = list(faults([first._replace(licence=licence), *others]))
    assert found[0] == "docs/licences.md is out of date: make licences"
    assert found[1].startswith(f"{first.name}: the licence is {licence or 'unknown'}")


def test_a_version_that_is_not_pinned_is_found() -> None:
    first, *others = needed()
    found = list(faults([first._replace(version="99"), *others]))
    assert found[1:] == [f"{first.name}: constraints.txt does not pin 99"]


def test_the_bill_of_materials_has_the_service_and_all_that_it_needs() -> None:
    document = json.loads(JsonV1Dot6(bill(PACKAGES)).output_as_string())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert document["metadata"]["component"]["name"] == SERVICE
    assert [(one["name"], one["version"]) for one in document["components"]] == [
        (one.name, one.version) for one in needed()
    ]
    assert all(one["licenses"] for one in document["components"])
    needs = {one["ref"]: one.get("dependsOn", []) for one in document["dependencies"]}
    starlette = next(one.version for one in PACKAGES if one.name == "starlette")
    assert f"pkg:pypi/starlette@{starlette}" in next(needs[ref] for ref in needs if ref.startswith("pkg:pypi/fastapi@"))


def test_an_audit_that_cannot_reach_its_service_says_so_and_fails_nothing() -> None:
    command = [sys.executable, str(ROOT / "supply" / "audit.py")]
    nowhere = os.environ | {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    ended = subprocess.run(command, env=nowhere, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("pip-audit not run: ")


def test_an_audit_names_what_it_finds() -> None:
    report = {
        "dependencies": [
            {"name": "sound", "version": "1.0", "vulns": []},
            {"name": "unsound", "version": "2.0", "vulns": [{"id": "CVE-1", "fix_versions": ["2.1"]}]},
            {"name": "lost", "version": "3.0", "vulns": [{"id": "CVE-2", "fix_versions": []}]},
            {"name": "unknown", "skip_reason": "not found"},
        ]
    }
    assert findings(json.dumps(report)).splitlines() == [
        "unsound 2.0: CVE-1, fixed in 2.1",
        "lost 3.0: CVE-2, fixed in no version",
    ]
