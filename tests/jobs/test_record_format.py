"""Jobs that were recorded before an upgrade run after it."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from service import NOTEBOOK, Service
from trainers import trainer

from app.regression.solvers import GradientDescent
from app.training.request import RECORD_FORMAT, TrainingRequest

# A record of format 1 as a service wrote it, without its upload and fingerprint.
FORMAT_1: dict[str, Any] = {
    "model": "crop-yield",
    "format": "matrix",
    "features": ["temp", "rainfall", "humidity"],
    "targets": ["apples", "oranges"],
    "solver": {
        "kind": "gradient_descent",
        "epochs": 50,
        "learning_rate": 1e-05,
        "batch_size": 5,
        "shuffle": True,
        "seed": 0,
        "start": "random",
        "momentum": 0,
        "weight_decay": 0,
        "standardize": False,
        "patience": 20,
        "held_out": 0.2,
        "device": "auto",
    },
    "promote": "always",
    "mode": "replace",
    "decay": 1.0,
    "folds": None,
    "fold_seed": 0,
    "groups": None,
    "choose_l2": False,
    "unseen": False,
    "terms": [],
    "missing": "refuse",
    "weight": None,
    "weight_kind": None,
    "inherits": [],
    "trained_in": None,
    "share": None,
    "header": None,
    "warnings": [],
    "infer_columns": False,
}
DESCENT = {"kind": "gradient_descent", "epochs": 50, "batch_size": 5, "patience": 20, "validation_fraction": 0.2}


def test_a_record_of_format_1_is_read_with_the_new_name_of_its_option() -> None:
    request = TrainingRequest.from_json({**FORMAT_1, "upload": "rows", "fingerprint": "print"})
    assert isinstance(request.solver, GradientDescent)
    assert (request.solver.validation_fraction, request.solver.patience) == (0.2, 20)
    assert request.record_format == RECORD_FORMAT
    assert TrainingRequest.from_json(request.to_json()) == request


@pytest.mark.slow
def test_a_job_of_format_1_that_waits_in_the_database_runs_after_the_upgrade(tmp_path: Path) -> None:
    service = Service(tmp_path, trainer_mode="external").start()
    job = service.submit(**NOTEBOOK, solver=DESCENT)
    service.stop()
    with closing(sqlite3.connect(service.state / "jobs.sqlite", timeout=60)) as database, database:
        ((inputs,),) = database.execute("SELECT inputs FROM workflow_input WHERE workflow_uuid = ?", [job])
        arguments = json.loads(inputs)
        (new,) = arguments["positionalArgs"]
        arguments["positionalArgs"] = [{**FORMAT_1, **{name: new[name] for name in ("upload", "fingerprint")}}]
        database.execute("UPDATE workflow_input SET inputs = ? WHERE workflow_uuid = ?", [json.dumps(arguments), job])
    service.start()
    try:
        assert service.job(job)["status"] == "queued"
        with trainer(service, "upgraded"):
            assert service.end_of(job)["status"] == "succeeded"
        card = service.client.get("/models/crop-yield").json()
        assert card["job"] == job
        assert (card["solver"]["validation_fraction"], card["solver"]["patience"]) == (0.2, 20)
        assert "held_out" not in card["solver"]
    finally:
        service.stop()
