"""Checks of the files in deploy/ without a cluster: schemas, settings that exist, and agreement with the image."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from service import ROOT

from app.settings import Settings

KUBERNETES = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
OBJECTS: list[tuple[str, dict[str, Any]]] = [
    (f"{path.stem}-{found['kind']}", found)
    for path in KUBERNETES
    if path.stem != "kustomization"
    for found in yaml.safe_load_all(path.read_text())
]
COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose" / "compose.yaml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [found for _, found in OBJECTS if found["kind"] == kind]


def pods() -> list[dict[str, Any]]:
    return [found["spec"]["template"]["spec"] for found in of_kind("Deployment") + of_kind("StatefulSet")]


@pytest.mark.parametrize("found", [found for _, found in OBJECTS], ids=[name for name, _ in OBJECTS])
def test_an_object_follows_the_schema_of_kubernetes(found: dict[str, Any]) -> None:
    import kubernetes_validate  # takes long to load

    kubernetes_validate.validate(found, "1.32", strict=True)


def test_an_object_that_does_not_follow_the_schema_fails() -> None:
    import kubernetes_validate

    (deployment,) = of_kind("Deployment")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**deployment, "spec": {"replica": 2}}, "1.32", strict=True)


def test_every_file_is_listed_in_the_kustomization() -> None:
    listed = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "kustomization.yaml").read_text())["resources"]
    assert sorted([*listed, "kustomization.yaml"]) == [path.name for path in KUBERNETES]


def test_selectors_find_their_pods() -> None:
    labels = [
        found["spec"]["template"]["metadata"]["labels"] for found in of_kind("Deployment") + of_kind("StatefulSet")
    ]
    selectors = [found["spec"]["selector"] for found in of_kind("Service")]
    selectors += [found["spec"]["selector"]["matchLabels"] for found in of_kind("PodDisruptionBudget")]
    selectors += [found["spec"]["podSelector"]["matchLabels"] for found in of_kind("NetworkPolicy")]
    for selector in selectors:
        assert any(selector.items() <= label.items() for label in labels)


def test_pods_have_no_rights_and_write_only_to_volumes() -> None:
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"]
        assert str(pod["securityContext"]["runAsUser"]) in DOCKERFILE
        for container in pod["containers"]:
            rights = container["securityContext"]
            assert rights["readOnlyRootFilesystem"]
            assert rights["capabilities"] == {"drop": ["ALL"]}
            assert not rights["allowPrivilegeEscalation"]
            mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert {"/service/state", "/tmp"} <= mounted  # noqa: S108 - of the container


def settings_in(value: Any) -> set[str]:
    return set(re.findall(r"LINSERVE_[A-Z_]+", str(value)))


def test_every_setting_exists() -> None:
    known = {f"LINSERVE_{name.upper()}" for name in Settings.model_fields}
    used = set(itertools.chain.from_iterable(map(settings_in, (OBJECTS, COMPOSE))))
    assert {"LINSERVE_STORAGE", "LINSERVE_DATABASE_URL", "LINSERVE_TRAINER_NAME"} <= used <= known


def test_compose_starts_two_replicas_over_one_postgres_and_one_bucket() -> None:
    services = COMPOSE["services"]
    assert services["replica"]["deploy"]["replicas"] == 2
    assert services["trainer"]["command"] == ["python", "-m", "app.trainer"]
    for name in ("replica", "trainer"):
        assert services[name]["read_only"]
        assert services[name]["environment"]["LINSERVE_STORAGE"].startswith("s3://linserve/")
    for service in services.values():
        for needed in service.get("depends_on", ()):
            assert needed in services


def test_files_that_compose_mounts_exist() -> None:
    folder = ROOT / "deploy" / "compose"
    mounts = [mount for service in COMPOSE["services"].values() for mount in service.get("volumes", ())]
    files = [Path(mount.partition(":")[0]) for mount in mounts if mount.startswith(".")]
    assert len(files) == 6
    assert all((folder / file).is_file() for file in files)


def test_prometheus_scrapes_the_replicas_and_reads_the_alerts() -> None:
    folder = ROOT / "deploy" / "compose"
    configured = yaml.safe_load((folder / "prometheus.yaml").read_text())
    mounted = " ".join(COMPOSE["services"]["prometheus"]["volumes"])
    for file in configured["rule_files"]:
        assert f"../prometheus/{file}:/etc/prometheus/{file}" in mounted
    assert configured["scrape_configs"][0]["dns_sd_configs"][0]["names"] == ["replica"]


def test_grafana_finds_its_data_source_and_the_dashboard() -> None:
    folder = ROOT / "deploy" / "compose"
    mounted = " ".join(COMPOSE["services"]["grafana"]["volumes"])
    (provider,) = yaml.safe_load((folder / "grafana-dashboards.yaml").read_text())["providers"]
    assert f"../grafana/linserve.json:{provider['options']['path']}/linserve.json" in mounted
    assert "/etc/grafana/provisioning/dashboards/" in mounted
    assert "/etc/grafana/provisioning/datasources/" in mounted
