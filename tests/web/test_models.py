from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from service import INPUTS, NOTEBOOK, TARGETS, Service


@pytest.fixture(scope="module")
def versioned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with three versions, the third current; tests leave it so."""
    running = Service(tmp_path_factory.mktemp("models")).start()
    for rows in (10, 12):
        running.train(instances=INPUTS[:rows], targets=TARGETS[:rows])
    yield running
    running.stop()


def test_the_card_of_the_current_version_says_all_that_is_known(versioned: Service) -> None:
    card = versioned.client.get("/models/crop-yield").json()

    assert (card["model"], card["version"], card["current"], card["versions"]) == ("crop-yield", 3, True, [1, 2, 3])
    assert card["features"] == ["temp", "rainfall", "humidity"]
    assert card["targets"] == ["apples", "oranges"]
    assert card["rows"] == 12
    assert card["rank"] == 4
    assert card["ranges"]["temp"] == [68, 102]
    assert card["parent"] == 2
    assert card["solver"] == {"kind": "exact", "l2": 0, "fit_intercept": True, "device": "cpu"}
    for target in card["targets"]:
        for name in ("intercept", *card["features"]):
            low, high = card["confidence_intervals"][target][name]
            value = card["intercept"][target] if name == "intercept" else card["coefficients"][target][name]
            assert low < value < high
            assert card["standard_errors"][target][name] > 0
            assert 0 <= card["p_values"][target][name] <= 1


def test_a_version_that_is_not_current_says_so(versioned: Service) -> None:
    card = versioned.client.get("/models/crop-yield/versions/1").json()

    assert card["current"] is False
    assert card["job"] is None


def test_models_are_listed_with_their_versions(versioned: Service) -> None:
    assert versioned.client.get("/models").json() == {
        "items": [
            {
                "model": "crop-yield",
                "version": 3,
                "features": ["temp", "rainfall", "humidity"],
                "targets": ["apples", "oranges"],
                "versions": [1, 2, 3],
            }
        ],
        "next": None,
    }


def test_rolling_back_serves_the_old_version_at_once(versioned: Service) -> None:
    answer = versioned.client.put("/models/crop-yield/current", json={"version": 1})

    assert answer.status_code == httpx.codes.OK
    assert answer.json()["version"] == 1
    assert versioned.predict([75, 63, 44])["version"] == 1
    versioned.client.put("/models/crop-yield/current", json={"version": 3})
    assert versioned.predict([75, 63, 44])["version"] == 3


@pytest.mark.parametrize("path", ["/models/crop-yield", "/models/crop-yield/versions/1"])
def test_a_card_at_hand_is_not_sent_again_until_it_changes(versioned: Service, path: str) -> None:
    tag = versioned.client.get(path).headers["etag"]

    assert versioned.client.get(path, headers={"if-none-match": tag}).status_code == httpx.codes.NOT_MODIFIED
    versioned.client.put("/models/crop-yield/current", json={"version": 1})
    assert versioned.client.get(path, headers={"if-none-match": tag}).status_code == httpx.codes.OK
    versioned.client.put("/models/crop-yield/current", json={"version": 3})


def test_a_downloaded_file_serves_elsewhere(versioned: Service, tmp_path: Path) -> None:
    content = versioned.client.get("/models/crop-yield/versions/2/file").content
    folder = tmp_path / "models" / "crop-yield"
    folder.mkdir(parents=True)
    (folder / "000002.safetensors").write_bytes(content)
    (folder / "current").symlink_to("000002.safetensors")

    elsewhere = Service(tmp_path, trainer="external").start()
    try:
        there = versioned.client.post("/models/crop-yield/versions/2/predict", json={"instances": [[1, 2, 3]]})
        assert elsewhere.predict([1, 2, 3]) == there.json()
        assert elsewhere.trainers() == []
    finally:
        elsewhere.stop()


def test_a_deleted_version_is_gone_and_its_number_is_not_used_again(versioned: Service) -> None:
    job = versioned.train(**NOTEBOOK, promote="never")
    path = f"/models/crop-yield/versions/{job['version']}"

    assert versioned.client.delete(path).status_code == httpx.codes.NO_CONTENT
    assert versioned.client.get(path).status_code == httpx.codes.NOT_FOUND
    assert versioned.client.delete(path).status_code == httpx.codes.NOT_FOUND
    assert versioned.train(**NOTEBOOK, promote="never")["version"] == job["version"] + 1


def test_a_damaged_current_file_leaves_the_version_before_it_serving(tmp_path: Path) -> None:
    service = Service(tmp_path).start()
    try:
        service.train(**NOTEBOOK)
        assert service.predict([75, 63, 44])["version"] == 2
        service.stop()
        path = service.models / "crop-yield" / "000002.safetensors"
        content = path.read_bytes()
        path.write_bytes(content[:-1])

        service.start()
        assert service.predict([75, 63, 44])["version"] == 1
        assert "000002.safetensors is truncated" in service.log.read_text()
        refused = service.client.put("/models/crop-yield/current", json={"version": 2})
        assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert service.client.get("/models/crop-yield").json()["version"] == 1

        path.write_bytes(content)
        assert service.predict([75, 63, 44])["version"] == 2  # mended, and served again without a promotion
    finally:
        service.stop()
