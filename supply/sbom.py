"""`make sbom`: what runs with the service as a software bill of materials, CycloneDX in JSON, on standard output."""

import sys

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from runtime import SERVICE, Package, runtime_packages


def bill(packages: list[Package]) -> Bom:
    components = {package.name: _component(package) for package in packages}
    bom = Bom(components=[component for name, component in components.items() if name != SERVICE])
    bom.metadata.component = components[SERVICE]
    for package in packages:
        bom.register_dependency(components[package.name], [components[name] for name in sorted(package.needs)])
    return bom


def _component(package: Package) -> Component:
    address = PackageURL("pypi", name=package.name, version=package.version)
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.APPLICATION if package.name == SERVICE else ComponentType.LIBRARY,
        licenses=[LicenseFactory().make_from_string(package.licence)],
        purl=address,
        bom_ref=str(address),
    )


if __name__ == "__main__":
    sys.stdout.write(JsonV1Dot6(bill(runtime_packages())).output_as_string(indent=2) + "\n")
