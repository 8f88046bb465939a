"""A new version of a model has the columns of the current one, unless the request allows others."""

from typing import Any

import httpx
import pyarrow as pa
import pytest
from service import INPUTS, TARGETS, Service
from tables import MEDIA_TYPES, written

ROWS = pa.table({"size": [1.0, 2.0, 3.0, 4.0], "rooms": [1.0, 1.0, 2.0, 2.0], "price": [1.0, 2.0, 4.0, 4.0]})
JSON = "json"


def train(service: Service, form: str, table: pa.Table, targets: list[str], **options: Any) -> httpx.Response:
    """Train from a table in a format. In JSON, the targets are separate from the instances."""
    if form == JSON:
        names = [name for name in table.column_names if name not in targets]
        body = {"instances": table.select(names).to_pylist(), "targets": table.select(targets).to_pylist(), **options}
        return service.post_training(json=body)
    return service.post_training(
        params={"targets": ",".join(targets), **options},
        content=written(table, form),
        headers={"content-type": MEDIA_TYPES[form]},
    )


@pytest.mark.parametrize("form", [JSON, *MEDIA_TYPES])
def test_a_file_with_other_columns_does_not_replace_the_shipped_model(service: Service, form: str) -> None:
    answer = train(service, form, ROWS, ["price"])
    assert answer.status_code == 422, answer.text
    detail = answer.json()["detail"]
    assert "New features: size, rooms. Missing features: temp, rainfall, humidity." in detail
    assert "New targets: price. Missing targets: apples, oranges." in detail
    assert detail.index("NEW_NAME") < detail.index("infer")
    assert len(answer.json()["errors"]) == 8
    own = train(service, form, ROWS, ["price"], model=f"own-columns-{form}")
    assert own.json()["status"] == "succeeded", own.text


@pytest.mark.parametrize("form", [JSON, *MEDIA_TYPES])
def test_other_columns_need_an_explicit_option(service: Service, form: str) -> None:
    model = f"columns-{form}"
    assert train(service, form, ROWS, ["price"], model=model).json()["status"] == "succeeded"
    more = ROWS.append_column("id", pa.array([5.0, 1.0, 2.0, 2.0]))
    refused = train(service, form, more, ["price"], model=model)
    assert refused.status_code == 422, refused.text
    assert "New features: id. Add" in refused.json()["detail"]
    less = train(service, form, ROWS.drop("size"), ["price"], model=model)
    if form == "ndjson":  # A later line may have the name, so the job checks it.
        assert less.json()["status"] == "failed", less.text
        assert "Missing features: size. Add" in less.json()["error"]["detail"]
    else:
        assert less.status_code == 422, less.text
        assert "Missing features: size. Add" in less.json()["detail"]

    def features() -> list[str]:
        return list(service.client.get(f"/models/{model}").json()["features"])

    chosen = {"feature_names": ["size", "rooms"]} if form == JSON else {"features": "size,rooms"}
    table = ROWS if form == JSON else more
    assert train(service, form, table, ["price"], model=model, **chosen).json()["status"] == "succeeded"
    assert features() == ["size", "rooms"]
    assert train(service, form, more, ["price"], model=model, schema="infer").json()["status"] == "succeeded"
    assert features() == ["size", "rooms", "id"]


@pytest.mark.parametrize("form", [JSON, *MEDIA_TYPES])
def test_the_same_columns_in_another_order_keep_the_order_of_the_current_version(service: Service, form: str) -> None:
    model = f"order-{form}"
    assert train(service, form, ROWS, ["price"], model=model).json()["status"] == "succeeded"
    swapped = ROWS.select(["rooms", "price", "size"])
    for options in ({}, {"mode": "update"}):
        job = train(service, form, swapped, ["price"], model=model, **options).json()
        assert job["status"] == "succeeded", job
        assert service.client.get(f"/models/{model}").json()["features"] == ["size", "rooms"]


def test_a_target_that_becomes_a_feature_is_another_column(service: Service) -> None:
    names = ["temp", "rainfall", "humidity", "apples", "oranges"]
    table = pa.table(dict(zip(names, [*zip(*INPUTS, strict=True), *zip(*TARGETS, strict=True)], strict=True)))
    refused = train(service, "csv", table, ["apples"])
    assert refused.status_code == 422
    assert "New features: oranges. Missing targets: oranges." in refused.json()["detail"]
    form: str = "csv"
    default = service.client.post("/train", content=written(ROWS, form), headers={"content-type": MEDIA_TYPES[form]})
    assert "New features: size, rooms, price." in default.json()["detail"]
    assert "Missing targets: apples, oranges." in default.json()["detail"]
    empty = service.client.post(
        "/train?features=", content=written(ROWS, form), headers={"content-type": MEDIA_TYPES[form]}
    )
    assert empty.json()["detail"] == default.json()["detail"]


def test_names_in_the_message_are_cut_and_escaped(service: Service) -> None:
    table = pa.table({"a\u200bb": [1.0], "x" * 128: [1.0], "apples": [1.0], "oranges": [1.0]})
    detail = train(service, "csv", table, ["apples", "oranges"]).json()["detail"]
    assert r"New features: a\u200bb, " + "x" * 100 + "..." in detail


def test_columns_are_inferred_for_a_replacement_only(service: Service) -> None:
    refused = train(service, "csv", ROWS, ["price"], mode="update", schema="infer")
    assert refused.status_code == 422
    assert "mode replace" in refused.text
    assert train(service, "csv", ROWS, ["price"], schema="other").json()["errors"][0]["parameter"] == "schema"
    body = {"instances": [[1]], "targets": [[1]], "schema": "infer"}
    unnamed = service.client.post("/train", json=body)
    assert unnamed.json()["errors"][0]["pointer"] == "/feature_names"
