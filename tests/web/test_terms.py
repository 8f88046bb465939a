"""Terms over HTTP: given in training, computed again at prediction."""

from typing import Any

import httpx
import pytest
from service import Service

ROWS: dict[str, Any] = {
    "instances": [{"speed": v, "mass": m} for v in (1.0, 2.0, 3.0, 5.0) for m in (1.0, 2.0, 4.0)],
    "targets": [{"energy": 0.5 * m * v**2 + 7} for v in (1.0, 2.0, 3.0, 5.0) for m in (1.0, 2.0, 4.0)],
}


def test_the_caller_posts_plain_features_and_the_version_makes_its_terms(service: Service) -> None:
    job = service.train(model="kinetic", terms=["mass", "mass:speed^2"], **ROWS)

    assert job["status"] == "succeeded", job["error"]
    card = service.client.get("/models/kinetic").json()
    assert card["features"] == ["speed", "mass"]
    assert card["terms"] == ["mass", "mass:speed^2"]
    assert card["coefficients"]["energy"] == {"mass": pytest.approx(0, abs=1e-12), "mass:speed^2": pytest.approx(0.5)}
    body = {"instances": [{"speed": 10, "mass": 3}], "explain": True, "extrapolation": True}
    answer = service.client.post("/models/kinetic/predict", json=body).json()
    assert answer["predictions"] == [{"energy": pytest.approx(157)}]
    assert answer["extrapolation"][0]["outside"] == ["mass:speed^2"]
    assert set(answer["contributions"][0]["energy"]) == {"mass", "mass:speed^2"}


def test_an_update_keeps_the_terms_of_the_version(service: Service) -> None:
    half = {name: rows[:7] for name, rows in ROWS.items()}
    rest = {name: rows[7:] for name, rows in ROWS.items()}
    service.train(model="kinetic-update", terms=["speed", "mass:speed^2"], **half)

    job = service.train(model="kinetic-update", mode="update", **rest)

    assert job["status"] == "succeeded", job["error"]
    card = service.client.get("/models/kinetic-update").json()
    assert card["terms"] == ["speed", "mass:speed^2"]
    assert card["rows"] == 12
    assert card["coefficients"]["energy"]["mass:speed^2"] == pytest.approx(0.5)


def test_a_descent_supports_terms(service: Service) -> None:
    solver = {"kind": "gradient_descent", "standardize": True, "epochs": 2000, "learning_rate": 0.5}

    job = service.train(model="kinetic-descent", terms=["mass:speed^2"], solver=solver, **ROWS)

    assert job["status"] == "succeeded", job["error"]
    answer = service.client.post("/models/kinetic-descent/predict", json={"instances": [[10, 3]]}).json()
    assert answer["predictions"] == [[pytest.approx(157, rel=1e-6)]]


@pytest.mark.parametrize(
    ("terms", "place"), [(["speed", "height"], "/terms/1"), (["speed^99"], "/terms/0"), ([], "/terms")]
)
def test_invalid_terms_are_refused(service: Service, terms: list[str], place: str) -> None:
    answer = service.client.post("/train", json={"model": "kinetic-refused", "terms": terms, **ROWS})

    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert answer.json()["errors"][0]["pointer"] == place


def test_terms_of_a_file_are_in_the_query(service: Service) -> None:
    rows = zip(ROWS["instances"], ROWS["targets"], strict=True)
    content = "speed,mass,energy\n" + "".join(f"{x['speed']},{x['mass']},{y['energy']}\n" for x, y in rows)

    answer = service.client.post(
        "/train?model=kinetic-file&targets=energy&terms=speed^2:mass,mass",
        content=content,
        headers={"content-type": "text/csv", "prefer": "wait=60"},
    )

    job = service.ended_job(answer)
    assert job["status"] == "succeeded", job
    assert service.client.get("/models/kinetic-file").json()["terms"] == ["speed^2:mass", "mass"]


def test_confidence_intervals_of_the_mean_lie_within_those_of_a_new_observation(service: Service) -> None:
    answer = service.predict([75, 63, 44], interval=0.9, confidence=0.9)

    for (low, high), (lower, higher) in zip(answer["confidence_intervals"][0], answer["intervals"][0], strict=True):
        assert lower < low < high < higher
