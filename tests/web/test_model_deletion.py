"""A model is deleted with its versions and its jobs; models without a current version are listed, and deleted too."""

from typing import Any

import httpx
import pytest
from service import NOTEBOOK, Service
from threaded_service import ThreadedService

ROW = {"instances": [[75, 63, 44]]}
ENDLESS = {"kind": "gradient_descent", "epochs": 10_000_000, "learning_rate": 1e-9}
NAMES: dict[str, Any] = {"feature_names": ["temp", "rainfall", "humidity"], "target_names": ["apples", "oranges"]}
NO_CURRENT = "no current version; promote one"


@pytest.fixture
def own(publishing: Service) -> Service:
    return publishing


def delete(service: Service, model: str, condition: str | None = "*", **query: str) -> httpx.Response:
    headers = {} if condition is None else {"if-match": condition}
    return service.client.delete(f"/models/{model}", headers=headers, params=query)


def trained(service: Service, model: str, **options: Any) -> int:
    job = service.train(**NOTEBOOK, **NAMES, model=model, **options)
    assert job["status"] == "succeeded", job
    return int(job["version"])


def test_a_model_is_deleted_only_if_it_is_as_the_client_knows_it(own: Service) -> None:
    trained(own, "known")
    tag = own.client.get("/models/known").headers["etag"]
    missing = delete(own, "known", None)
    assert (missing.status_code, missing.json()["title"]) == (428, "Precondition required")
    assert "If-Match" in missing.json()["detail"]
    trained(own, "known", promote="never")
    for condition in (tag, f"W/{tag}", '"another"'):
        assert delete(own, "known", condition).status_code == 412
    assert own.client.post("/models/known/predict", json=ROW).status_code == 200
    assert delete(own, "known", own.client.get("/models/known").headers["etag"]).status_code == 204


def test_the_default_model_is_deleted_only_by_force(tmp_path_factory: pytest.TempPathFactory) -> None:
    service = ThreadedService(tmp_path_factory.mktemp("default")).start()
    try:
        refused = delete(service, "crop-yield")
        assert refused.status_code == 409
        assert "force=true" in refused.json()["detail"]
        assert service.predict([75, 63, 44])["version"] == 1
        assert delete(service, "crop-yield", force="true").status_code == 204
        assert service.client.post("/predict", json=ROW).status_code == 404
        ready = service.client.get("/health/ready")
        assert (ready.status_code, ready.json()["detail"]) == (
            503,
            'There is no model "crop-yield". GET /models lists the models.',
        )
        assert service.client.get("/models").json()["items"] == []
    finally:
        service.stop()


def test_jobs_of_a_deleted_model_are_cancelled_and_do_not_bring_it_back(own: Service) -> None:
    trained(own, "busy")
    running = own.submit(**NOTEBOOK, **NAMES, model="busy", solver=ENDLESS)
    assert any(job["status"] == "running" for job in own.follow(running))
    waiting = [own.submit(**NOTEBOOK, **NAMES, model="busy") for _ in range(3)]
    other = own.submit(**NOTEBOOK, **NAMES, model="other")

    assert delete(own, "busy").status_code == 204

    assert [own.job(job)["status"] for job in (running, *waiting)] == ["cancelled"] * 4
    assert own.end_of(other)["status"] == "succeeded"
    assert own.client.get("/models/busy").status_code == 404
    assert not (own.models / "busy").exists()


def test_a_model_with_a_damaged_version_can_be_deleted(own: Service) -> None:
    trained(own, "damaged")
    (own.models / "damaged" / "000001.safetensors").write_bytes(b"damaged")
    assert delete(own, "damaged").status_code == 204
    assert trained(own, "damaged") == 2


@pytest.mark.parametrize("query", [{"force": "perhaps"}, {"really": "true"}])
def test_an_unknown_option_of_a_deletion_deletes_nothing(own: Service, query: dict[str, str]) -> None:
    assert delete(own, "crop-yield", **query).status_code == 422
    assert own.client.get("/models/crop-yield").status_code == 200


def test_a_model_without_a_current_version_has_a_note_until_one_is_promoted(own: Service) -> None:
    for _ in range(2):
        trained(own, "unpromoted", promote="never")

    listed = {item["model"]: item for item in own.client.get("/models").json()["items"]}["unpromoted"]
    assert (listed["current"], listed["note"], listed["versions"]) == (None, NO_CURRENT, [1, 2])
    assert (listed["features"], listed["targets"]) == (NAMES["feature_names"], NAMES["target_names"])
    found = own.client.get("/models/unpromoted")
    assert found.json() == {"model": "unpromoted", "current": None, "note": NO_CURRENT, "versions": [1, 2]}
    tag = found.headers["etag"]
    assert own.client.get("/models/unpromoted", headers={"if-none-match": tag}).status_code == 304
    refused = own.client.post("/models/unpromoted/predict", json=ROW)
    assert (refused.status_code, refused.json()["type"]) == (404, "urn:linserve:problem:no-current-version")
    assert refused.json()["detail"] == 'Model "unpromoted" has no current version; promote one. Its versions: 1, 2.'
    assert own.client.post("/models/unpromoted/versions/1/predict", json=ROW).status_code == 200

    promoted = own.client.put("/models/unpromoted/current", json={"version": 1}, headers={"if-match": tag})
    assert (promoted.status_code, promoted.json()["current"]) == (200, True)
    assert own.client.post("/models/unpromoted/predict", json=ROW).json()["version"] == 1
    assert own.client.get("/models/unpromoted", headers={"if-none-match": tag}).status_code == 200
    assert (
        own.client.put("/models/unpromoted/current", json={"version": 2}, headers={"if-match": tag}).status_code == 412
    )
