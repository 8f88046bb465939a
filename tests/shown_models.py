"""Models with all that a page has to show: hostile names, categories, dates, gaps, terms, and withheld numbers."""

from typing import Any

import numpy as np
from service import Service

SCRIPT = "<script>window.ran=1</script>"
QUOTES = 'it\'s "x" `id` $(id) \\ & %s {{7*7}}'
LEVELS = ("Adelie", SCRIPT, QUOTES, "=1+1")
FILE = {"content-type": "application/octet-stream", "prefer": "wait=60"}


def train_models(service: Service) -> None:
    """Train `mixed`, `dependent`, `curved`, `saturated`, `waiting`, which is not promoted, `merged` and `wide`."""
    rng = np.random.default_rng(7)
    trained(service, **mixed(rng))
    x, z = rng.normal(5, 2, 40).tolist(), rng.normal(0, 1, 40).tolist()
    trained(
        service,
        model="dependent",
        instances=[{"x": a, "twice": 2 * a, "z": b} for a, b in zip(x, z, strict=True)],
        targets=[{"y": a + b * b, "constant": 4.0} for a, b in zip(x, z, strict=True)],
    )
    rows = [{"x": a, "z": b} for a, b in zip(x, z, strict=True)]
    targets = [{"y": 3 + a * b + a * a + rng.normal()} for a, b in zip(x, z, strict=True)]
    trained(service, model="curved", instances=rows, targets=targets, terms=["x^2", "x:z", "z"])
    trained(service, model="saturated", instances=rows[:3], targets=targets[:3])
    trained(service, model="waiting", instances=rows, targets=targets, promote="never")
    trained(service, model="site", instances=rows, targets=targets)
    exported = service.client.get("/models/site/versions/1/file?for=merge")
    assert exported.status_code == 200, exported.text
    merged = service.client.post("/models/merged/merge", content=exported.content, headers=FILE)
    assert service.ended_job(merged)["status"] == "succeeded", merged.text
    columns = rng.normal(0, 1, (620, 600))
    outcomes = columns[:, :40] + rng.normal(0, 1, (620, 40))
    names = {
        "feature_names": [f"c{index}" for index in range(600)],
        "target_names": [f"t{index}" for index in range(40)],
    }
    trained(service, model="wide", instances=columns.tolist(), targets=outcomes.tolist(), **names)


def mixed(rng: np.random.Generator) -> dict[str, Any]:
    """Return the request for a model of columns of all kinds, with hostile names and levels."""
    rows, targets = [], []
    for _ in range(160):
        species, length, female = rng.integers(4), rng.normal(45, 5), bool(rng.integers(2))
        day = f"202{rng.integers(4)}-{rng.integers(1, 13):02d}-{rng.integers(1, 29):02d}"
        row = {"species": LEVELS[species], QUOTES: length, "day": day, "female": female, SCRIPT: rng.normal(17, 2)}
        rows.append(row | ({QUOTES: None} if rng.random() < 0.1 else {}))
        y = 100 + 3 * length + 20 * species + 9 * female + rng.normal(0, 5)
        targets.append({f"mass {SCRIPT}": y, "flipper": rng.normal(200, 5)})
    return {
        "model": "mixed",
        "instances": rows,
        "targets": targets,
        "columns": {QUOTES: {"missing": "indicator"}},
        "validation": {"folds": 4},
    }


def trained(service: Service, **body: Any) -> None:
    job = service.train(**body)
    assert job["status"] == "succeeded", job
