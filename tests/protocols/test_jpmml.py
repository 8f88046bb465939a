"""JPMML, the reference evaluator of PMML, predicts what the service predicts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from exported import FAR, TABLES, assert_as_served, centred_version, rows_with_gaps, version_of
from pmml_evaluator import arguments_of
from programs import python_with, run_program

from app.exchange.pmml.writer import PmmlExport

PROGRAM = (Path(__file__).parent / "programs" / "jpmml.py").read_text()


@pytest.mark.skipif(shutil.which("java") is None, reason="JPMML needs Java")
def test_jpmml_predicts_what_the_service_predicts(tmp_path: Path) -> None:
    cases = [(version, rows_with_gaps(version)) for version in map(version_of, TABLES)]
    far = centred_version()
    x = np.random.default_rng(6).normal(size=(50, 3)) + FAR
    cases.append((far, [dict(zip(far.card.features, row, strict=True)) for row in x.tolist()]))
    written = []
    for place, (version, rows) in enumerate(cases):
        file = tmp_path / f"{place}.pmml"
        file.write_bytes(PmmlExport().write(version, {}))
        arguments = [arguments_of(version, row) for row in rows]
        written.append({"file": str(file), "rows": arguments, "target": version.card.targets[0]})
    (tmp_path / "cases.json").write_text(json.dumps(written))
    printed = run_program(python_with("jpmml"), PROGRAM, tmp_path)
    results = json.loads(printed.splitlines()[-1])
    for (version, rows), found in zip(cases, results, strict=True):
        # A program reads the first model of a file.
        first = np.array(found, np.float64)[:, np.newaxis]
        assert_as_served(first, version, rows, targets=1)
