"""Diagnostics over HTTP: on by default, an option in JSON, query and form, and shown in the card."""

from typing import Any

import numpy as np
import pytest
from cards import card_of, check_reasons
from pydantic import ValidationError
from service import Service
from starlette.datastructures import QueryParams
from trained import model_of, version_of

from app.errors import InvalidInput
from app.web.multipart import Form
from app.web.schemas.diagnostics import DiagnosticsView
from app.web.schemas.train import TrainRequest
from app.web.schemas.train_query import from_query

RANDOM = np.random.default_rng(4)
X = RANDOM.normal(size=(40, 2))
Y = X @ [[1.0], [2.0]] + RANDOM.normal(size=(40, 1))
Y[12] += 30
ROWS: dict[str, Any] = {
    "instances": [{"a": a, "b": b} for a, b in X.round(4).tolist()],
    "targets": [{"y": y} for (y,) in Y.round(4).tolist()],
}


def test_a_card_has_diagnostics_by_default_and_a_reason_without(service: Service) -> None:
    service.train(model="looked", **ROWS)
    card = service.client.get("/models/looked").json()
    DiagnosticsView.model_validate(card["diagnostics"])
    check_reasons(card)
    target = card["diagnostics"]["targets"]["y"]
    assert target["cooks_distance"][0]["row"] == 13
    assert set(target["partial_residuals"]) == {"a", "b"}
    assert "diagnostics" not in card["unavailable"]

    service.train(model="looked", mode="update", **{name: rows[:5] for name, rows in ROWS.items()})
    card = service.client.get("/models/looked").json()
    assert card["diagnostics"] is None
    assert "An update does not have the earlier rows" in card["unavailable"]["diagnostics"]

    service.train(model="not-looked", diagnostics=False, **ROWS)
    reasons = service.client.get("/models/not-looked").json()["unavailable"]
    assert reasons["diagnostics"] == "The request had `diagnostics=false`."


def test_a_part_that_is_withheld_has_its_reason_among_those_of_the_card(service: Service) -> None:
    service.train(model="ridge", solver={"kind": "exact", "l2": 2}, **ROWS)
    card = service.client.get("/models/ridge").json()
    check_reasons(card)
    assert card["diagnostics"]["leverage"] is None
    assert "penalty" in card["unavailable"]["diagnostics.leverage"]
    assert "unavailable" not in card["diagnostics"]


def test_a_version_of_before_says_that_nothing_was_recorded() -> None:
    card = card_of(version_of(model_of(X, Y)))
    assert card["diagnostics"] is None
    assert "no record of diagnostics" in card["unavailable"]["diagnostics"]


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False)])
def test_the_option_is_the_same_in_json_query_and_form(text: str, value: bool) -> None:
    made = [
        TrainRequest.model_validate({**ROWS, "diagnostics": value}),
        from_query(QueryParams(f"diagnostics={text}")),
        from_query(QueryParams(""), Form([("diagnostics", text)], {})),
        from_query(QueryParams(""), Form([], {"diagnostics": value})),
    ]
    requests = [options.to_request(default_model="m", upload="u", format="csv", fingerprint="") for options in made]
    assert [request.diagnostics for request in requests] == [value] * 4
    assert from_query(QueryParams("")).diagnostics is None


def test_rows_that_are_not_all_there_cannot_be_asked_for_diagnostics() -> None:
    with pytest.raises(InvalidInput, match="needs mode replace"):
        from_query(QueryParams("mode=update&diagnostics=true"))
    with pytest.raises(ValidationError, match="needs mode replace"):
        TrainRequest.model_validate({**ROWS, "mode": "forget", "diagnostics": True})
    assert from_query(QueryParams("mode=update&diagnostics=false")).diagnostics is False
