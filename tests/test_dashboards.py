"""The dashboard and the alerts name metrics that a real service exports, in queries that Prometheus can read."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from service import INPUTS, ROOT, TARGETS, Service, wait_for

DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana" / "linserve.json").read_text())
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
QUERIES += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
MODELS_QUERY = "label_values(linserve_model_version, model)"
EXPRESSIONS = [rule["expr"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
NO_SAMPLES = {  # of a service whose columns are numbers, and that has always recorded what it should
    "linserve_drift_stability_index",
}


def names_in(queries: list[str]) -> set[str]:
    return {name for query in queries for name in re.findall(r"\blinserve_[a-z_]+", query)}


def families_of(service: Service) -> list[Metric]:
    return list(text_string_to_metric_families(service.client.get("/metrics").text))


def names_with_samples(families: list[Metric]) -> set[str]:
    return {sample.name for family in families for sample in family.samples}


def checked(folder: Path, *rules: dict[str, str]) -> str:
    """Return the complaints of promtool about these rules."""
    file = folder / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "test", "rules": list(rules)}]}))
    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def test_every_query_names_metrics_that_a_service_exports(tmp_path: Path) -> None:
    used = names_in([*QUERIES, MODELS_QUERY, *EXPRESSIONS])
    service = Service(tmp_path).start()
    try:
        ids = [f"field-{index}" for index in range(len(INPUTS))]
        for _ in range(8):
            service.predict(*INPUTS)
        answer = service.client.post("/predict", json={"instances": INPUTS, "prediction_id": ids})
        assert answer.status_code == 200, answer.text
        actuals = [
            {"prediction_id": name, "apples": apples, "oranges": oranges}
            for name, (apples, oranges) in zip(ids, TARGETS, strict=True)
        ]
        answer = service.client.post("/models/crop-yield/actuals", json={"actuals": actuals})
        assert answer.status_code == 200, answer.text
        service.client.get("/models/crop-yield/drift")
        wait_for(lambda: names_with_samples(families_of(service)) >= used - NO_SAMPLES)
        families = families_of(service)
    finally:
        service.stop()

    with_samples = names_with_samples(families)
    described = {family.name for family in families}
    assert used - with_samples == NO_SAMPLES
    assert used - with_samples <= described
    # Everything about models is on the dashboard.
    assert {name for name in described if re.match("linserve_(model|drift|outcome)_", name)} <= {
        name.removesuffix("_total") for name in names_in(QUERIES)
    }
    labels = {sample.name: set(sample.labels) for family in families for sample in family.samples}
    for query in QUERIES + EXPRESSIONS:
        for grouped, name in re.findall(r"by \(([a-z, ]+)\) \((?:rate\()?(linserve_[a-z_]+)", query):
            assert name in NO_SAMPLES or set(grouped.split(", ")) <= labels[name], query


@needs_promtool
def test_every_query_of_the_dashboard_can_be_read(tmp_path: Path) -> None:
    variables = {"$__rate_interval": "5m", "$model": ".*"}
    filled = []
    for query in QUERIES:
        for name, value in variables.items():
            query = query.replace(name, value)  # noqa: PLW2901
        assert "$" not in query
        filled.append(query)

    assert checked(tmp_path, *({"record": f"query_{index}", "expr": each} for index, each in enumerate(filled))) == ""
    assert "parse" in checked(tmp_path, {"record": "broken", "expr": "sum(rate(linserve_requests_total[5m])"})


@needs_promtool
def test_alerts_are_rules_that_fire_when_they_should(tmp_path: Path) -> None:
    done = subprocess.run(["promtool", "check", "rules", str(ALERTS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    replicas = [f'{{instance="{name}", model="crop-yield"}}' for name in ("a", "b")]
    cases = {
        "LinserveDrift": (["linserve_drift_detected"], ["1x90"], ["0x90"]),
        "LinserveExtrapolation": (
            ["linserve_drift_extrapolated_ratio", "linserve_drift_rows"],
            ["0.5x90", "100x90"],
            ["0.5x90", "99x90"],
        ),
    }
    for alert, (names, firing, quiet) in cases.items():
        for values, expected in ((firing, 1), (quiet, 0)):
            series = [
                {"series": f"{name}{labels}", "values": value.replace("x", "+0x")}
                for name, value in zip(names, values, strict=True)
                for labels in replicas
            ]
            rule = next(
                rule
                for group in yaml.safe_load(ALERTS.read_text())["groups"]
                for rule in group["rules"]
                if rule["alert"] == alert
            )
            summary = rule["annotations"] | {
                name: text.replace("{{ $labels.model }}", "crop-yield") for name, text in rule["annotations"].items()
            }
            fired = [{"exp_labels": {"model": "crop-yield"}, "exp_annotations": summary}] * expected
            test = {
                "rule_files": [str(ALERTS)],
                "tests": [
                    {
                        "interval": "1m",
                        "input_series": series,
                        "alert_rule_test": [{"eval_time": "80m", "alertname": alert, "exp_alerts": fired}],
                    }
                ],
            }
            file = tmp_path / "test.yaml"
            file.write_text(yaml.safe_dump(test))
            done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr


def test_panels_have_titles_descriptions_and_places_of_their_own() -> None:
    places = set()
    for panel in DASHBOARD["panels"]:
        assert panel["title"]
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in places
                places.add((x, y))
    assert all(panel["description"] for panel in PANELS)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert [variable["query"]["query"] for variable in DASHBOARD["templating"]["list"][1:]] == [MODELS_QUERY]
