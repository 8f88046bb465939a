"""PMML files of models: an evaluator predicts what the service predicts."""

import numpy as np
import pytest
from exported import FAR, TABLES, assert_as_served, centred_version, rows_with_gaps, version_of
from pmml_evaluator import predictions_of_pmml

from app.exchange.pmml.writer import PmmlExport

EXPORT = PmmlExport()


@pytest.mark.parametrize("name", TABLES)
def test_an_evaluator_predicts_what_the_service_predicts(name: str) -> None:
    version = version_of(name)
    rows = rows_with_gaps(version)
    assert_as_served(predictions_of_pmml(EXPORT.write(version, {}), version, rows), version, rows)


def test_a_model_in_centred_form_keeps_its_digits() -> None:
    version = centred_version()
    x = np.random.default_rng(6).normal(size=(50, 3)) + FAR
    rows = [dict(zip(version.card.features, row, strict=True)) for row in x.tolist()]
    assert_as_served(predictions_of_pmml(EXPORT.write(version, {}), version, rows), version, rows)
