from pathlib import Path
from typing import Any

import httpx
import pytest
from service import INPUTS, MODELS, NOTEBOOK, TARGETS, Service, wait_for

WEIGHTS = [[0.9887, -0.6828, -0.3289], [-0.0954, -0.1854, -0.6360]]
INTERCEPT = [1.0996, 0.1550]


@pytest.fixture
def own(publishing: Service) -> Service:
    """A service whose models a test may change. The shipped version is current again."""
    answer = publishing.client.put("/models/crop-yield/current", json={"version": 1})
    assert answer.status_code == httpx.codes.OK
    return publishing


def descent(**solver: Any) -> dict[str, Any]:
    return {"kind": "gradient_descent", **solver}


def test_exact_training_answers_with_the_optimum_and_the_next_prediction_uses_it(own: Service) -> None:
    job = own.train(**NOTEBOOK)

    assert job["status"] == "succeeded"
    assert job["version"] > 1
    assert job["metrics"]["mse"] == pytest.approx(0.9094, abs=5e-5)
    assert job["progress"]["rows"] == 15
    answer = own.predict([75, 63, 44])
    assert answer["version"] == job["version"]
    assert answer["predictions"][0] == [pytest.approx(53.80, abs=0.005), pytest.approx(66.81, abs=0.005)]


def test_a_csv_file_trains_the_same_model_as_its_rows_in_json(own: Service) -> None:
    shuffled = "oranges,humidity,apples,temp,rainfall\n" + "".join(
        f"{y[1]},{x[2]},{y[0]},{x[0]},{x[1]}\n" for x, y in zip(INPUTS, TARGETS, strict=True)
    )
    for content in (MODELS.joinpath("crop-yield/yields.csv").read_text(), shuffled):
        answer = own.post_training(
            params={"targets": "apples,oranges", "features": "temp,rainfall,humidity"},
            content=content,
            headers={"content-type": "text/csv"},
        )
        assert answer.json()["status"] == "succeeded", answer.text

    shipped = own.client.get("/models/crop-yield/versions/1").json()
    trained = own.client.get("/models/crop-yield").json()
    assert trained["version"] == answer.json()["version"]
    for target in ("apples", "oranges"):
        assert trained["coefficients"][target] == pytest.approx(shipped["coefficients"][target], rel=1e-9)


def test_query_options_of_a_file_mean_what_they_mean_in_json(service: Service) -> None:
    query = "targets=apples,oranges&promote=never&solver=gradient_descent&epochs=7&batch_size=5&shuffle=false&seed=3"

    job = service.post_training(
        params=query,
        content=MODELS.joinpath("crop-yield/yields.csv").read_text(),
        headers={"content-type": "text/csv; charset=utf-8"},
    ).json()

    same = service.train(**NOTEBOOK, promote="never", solver=descent(epochs=7, batch_size=5, shuffle=False, seed=3))
    assert job["loss_curve"] == same["loss_curve"]
    assert len(job["loss_curve"]) == 8


def test_the_notebooks_descent_from_its_printed_weights_has_the_notebooks_losses(own: Service) -> None:
    rows: dict[str, Any] = {"instances": INPUTS[:5], "targets": TARGETS[:5]}
    start = {"weights": WEIGHTS, "intercept": INTERCEPT}

    first = own.train(**rows, solver=descent(epochs=102, learning_rate=1e-5, start=start))
    losses = dict(first["loss_curve"])
    assert losses[0] == pytest.approx(16740.3, rel=1e-3)
    assert losses[1] == pytest.approx(11840.2, rel=1e-3)
    assert losses[2] == pytest.approx(8531.4, rel=1e-3)
    assert losses[102] == pytest.approx(530.45, rel=1e-3)

    second = own.train(**rows, solver=descent(epochs=100, learning_rate=1e-5, start="current"))
    assert second["loss_curve"][0] == [0, pytest.approx(losses[102])]
    assert second["loss_curve"][-1] == [100, pytest.approx(184.35, rel=1e-3)]
    card = own.client.get("/models/crop-yield").json()
    assert card["solver"]["start"] == {"version": first["version"]}
    assert card["parent"] == first["version"]


def test_batches_of_5_for_100_epochs_come_near_the_yields(own: Service) -> None:
    job = own.train(**NOTEBOOK, solver=descent(batch_size=5, epochs=100, learning_rate=1e-5))

    apples, oranges = own.predict([75, 63, 44])["predictions"][0]
    assert (apples, oranges) == (pytest.approx(55, abs=5), pytest.approx(69, abs=5))
    assert job["metrics"]["optimum_mse"] == pytest.approx(0.9094, abs=5e-5)
    assert own.predict([75, 63, 44], interval=0.9)["intervals"] is None


def test_too_large_a_learning_rate_fails_with_one_that_works_and_the_old_version_serves(service: Service) -> None:
    job = service.train(**NOTEBOOK, solver=descent(learning_rate=1))

    assert job["status"] == "failed"
    assert "diverged" in job["error"]["detail"]
    assert "0.0001115." in job["error"]["detail"]  # rounded down: 0.0001116 would be above the bound
    assert service.predict([75, 63, 44])["version"] == 1
    stable = service.train(**NOTEBOOK, promote="never", solver=descent(learning_rate=0.000111))
    assert stable["status"] == "succeeded"


def test_a_version_that_is_not_promoted_answers_only_requests_that_name_it(service: Service) -> None:
    job = service.train(**NOTEBOOK, promote="never", solver=descent(epochs=1))

    assert service.predict([75, 63, 44])["version"] == 1
    answer = service.client.post(
        f"/models/crop-yield/versions/{job['version']}/predict", json={"instances": [[75, 63, 44]]}
    )
    assert answer.json()["version"] == job["version"]


def test_a_new_model_takes_its_names_from_objects(service: Service) -> None:
    rows = [{"altitude": 0.0}, {"altitude": 1000.0}, {"altitude": 2000.0}]
    boils = [{"celsius": 100.0}, {"celsius": 96.7}, {"celsius": 93.3}]

    job = service.train(model="boiling-point", instances=rows, targets=boils)

    assert job["status"] == "succeeded"
    answer = service.client.post("/models/boiling-point/predict", json={"instances": [{"altitude": 500}]}).json()
    assert answer["predictions"] == [{"celsius": pytest.approx(98.35, abs=0.05)}]
    assert service.predict([75, 63, 44])["model"] == "crop-yield"


def test_collinear_and_constant_features_are_solved_with_a_warning(service: Service) -> None:
    job = service.train(
        model="collinear-and-constant",
        instances=[{"a": x, "twice": 2 * x, "constant": 5} for x in (1.0, 2.0, 3.0, 4.0, 7.0)],
        targets=[{"y": 3 * x + 1} for x in (1.0, 2.0, 3.0, 4.0, 7.0)],
    )

    assert job["status"] == "succeeded"
    assert any('"constant" is constant' in warning for warning in job["warnings"])
    assert any("2 of 4 coefficients" in warning for warning in job["warnings"])
    card = service.client.get("/models/collinear-and-constant").json()
    assert card["rank"] == 2
    assert card["standard_errors"] is None
    assert card["coefficients"]["y"]["constant"] == 0
    answer = service.client.post(
        "/models/collinear-and-constant/predict", json={"instances": [{"a": 5, "twice": 10, "constant": 5}]}
    ).json()
    assert answer["predictions"] == [{"y": pytest.approx(16)}]


def test_one_row_trains_a_constant_with_a_warning(service: Service) -> None:
    job = service.train(model="one-row", instances=[{"a": 1, "b": 2}], targets=[{"y": 7}])

    assert job["status"] == "succeeded"
    assert any("1 of 3 coefficients" in warning for warning in job["warnings"])
    answer = service.client.post("/models/one-row/predict", json={"instances": [[1, 2]]}).json()
    assert answer["predictions"] == [[7.0]]


def test_without_a_preference_to_wait_the_response_is_immediate_and_names_the_job(service: Service) -> None:
    answer = service.client.post("/train", json={**NOTEBOOK, "promote": "never"})

    assert answer.status_code == httpx.codes.ACCEPTED
    assert answer.headers["location"] == f"/jobs/{answer.json()['id']}"
    assert "preference-applied" not in answer.headers
    assert service.end_of(answer.json()["id"])["status"] == "succeeded"


def test_too_short_a_wait_answers_202_with_the_job_as_it_is(service: Service) -> None:
    body = {**NOTEBOOK, "promote": "never", "solver": descent(epochs=10_000_000)}

    answer = service.client.post("/train", json=body, headers={"prefer": "respond-async, wait=1"})

    assert answer.status_code == httpx.codes.ACCEPTED
    assert answer.headers["preference-applied"] == "respond-async, wait=1"
    assert answer.json()["status"] in ("queued", "running")
    service.client.post(f"/jobs/{answer.json()['id']}/cancel")


def test_the_same_idempotency_key_names_the_same_job(service: Service) -> None:
    service.finish_jobs()
    body = {**NOTEBOOK, "promote": "never"}
    headers = {"idempotency-key": "harvest-2026"}

    first, second = (service.post_training(json=body, headers=headers) for _ in range(2))

    assert first.json() == second.json()
    assert first.json()["status"] == "succeeded"
    other = service.client.post("/train", json={**body, "instances": INPUTS[::-1]}, headers=headers)
    assert other.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert other.json()["type"].endswith("key-reused")
    assert list((service.state / "spool").glob("*")) == []


def test_a_running_descent_reports_progress_and_stops_when_it_is_cancelled(service: Service) -> None:
    service.finish_jobs()
    job_id = service.submit(**NOTEBOOK, promote="never", solver=descent(epochs=100_000_000))
    events = service.follow(job_id)
    running = next(job for job in events if job["progress"] and job["progress"]["epoch"])
    assert running["status"] == "running"
    assert running["progress"]["phase"] == "fitting"
    assert running["progress"]["epochs"] == 100_000_000
    assert running["loss_curve"][0][0] == 0

    cancelled = service.client.post(f"/jobs/{job_id}/cancel").json()
    assert cancelled["status"] == "cancelled"
    *earlier, last = [job["status"] for job in events]
    assert (set(earlier) <= {"running"}, last) == (True, "cancelled")
    # The trainer is free again, because the next job ends long before a hundred million epochs would.
    assert service.train(**NOTEBOOK, promote="never")["status"] == "succeeded"
    assert service.client.post(f"/jobs/{job_id}/cancel").json()["status"] == "cancelled"
    wait_for(lambda: is_logged(service, "job cancelled", job_id))  # once its files are removed
    assert list((service.state / "spool").glob("*")) == []
    assert list((service.state / "checkpoints").glob("*")) == []


def is_logged(service: Service, message: str, job_id: str) -> bool:
    return any((record["message"], record.get("job")) == (message, job_id) for record in service.records())


def test_cancelling_an_ended_job_returns_it_unchanged(service: Service) -> None:
    for solver, status in ((descent(learning_rate=1), "failed"), ({"kind": "exact"}, "succeeded")):
        job = service.train(**NOTEBOOK, promote="never", solver=solver)
        assert job["status"] == status

        answer = service.client.post(f"/jobs/{job['id']}/cancel")

        assert answer.status_code == httpx.codes.OK
        assert answer.json() == service.job(job["id"])


def test_jobs_are_listed_newest_first_page_by_page_and_by_status(service: Service) -> None:
    ids = [service.train(**NOTEBOOK, promote="never")["id"] for _ in range(3)]
    service.train(**NOTEBOOK, solver=descent(learning_rate=1))

    listed: list[str] = []
    query = {"limit": "2", "status": "succeeded"}
    while True:
        page = service.client.get("/jobs", params=query).json()
        assert len(page["items"]) <= 2
        assert all(job["status"] == "succeeded" for job in page["items"])
        listed += [job["id"] for job in page["items"]]
        if page["next"] is None:
            break
        query["next"] = page["next"]
    assert len(listed) == len(set(listed))
    assert listed[:3] == ids[::-1]
    failed = service.client.get("/jobs", params={"status": "failed", "limit": 1}).json()["items"]
    assert failed[0]["error"]["title"] == "Diverged"


def test_columns_whose_names_hold_commas_quotes_and_line_breaks_can_be_chosen(service: Service) -> None:
    content = '"a,b",note,"y ""1"""\r\n' + "".join(f'{x},"two\r\nlines",{3 * x + 1}\r\n' for x in range(1, 9))
    query = {"model": "odd-names", "features": '"a,b"', "targets": '"y ""1"""'}

    job = service.post_training(params=query, content="\ufeff" + content, headers={"content-type": "text/csv"}).json()

    assert job["status"] == "succeeded", job
    assert service.client.get("/models/odd-names").json()["coefficients"] == {'y "1"': {"a,b": pytest.approx(3)}}


def test_a_repeated_request_names_its_job_even_if_it_would_be_refused_today(own: Service) -> None:
    first = {**NOTEBOOK, "solver": descent(epochs=1, start="current")}
    headers = {"idempotency-key": "k1"}
    job = own.post_training(json=first, headers=headers).json()
    own.train(instances=[[1], [2]], targets=[[1], [2]], feature_names=["a"], target_names=["b"])

    assert own.post_training(json=first, headers=headers).json() == job
    assert own.client.post("/train", json=first).status_code == httpx.codes.UNPROCESSABLE_ENTITY


@pytest.mark.slow
def test_jobs_cancelled_at_any_moment_end_with_the_status_in_the_response(own: Service) -> None:
    for polls in range(0, 40, 5):
        job_id = own.submit(**NOTEBOOK)
        for _ in range(polls):
            own.job(job_id)  # takes a few milliseconds, so that jobs are cancelled at various moments
        answer = own.client.post(f"/jobs/{job_id}/cancel")
        assert answer.status_code in (httpx.codes.OK, httpx.codes.CONFLICT)
        job = own.end_of(job_id)
        said = answer.json()["status"] if answer.status_code == httpx.codes.OK else "succeeded"
        assert job["status"] == said  # cancelled, or already ended
        own.train(**NOTEBOOK, promote="never")  # so the cancelled job has ended completely
        cards = [
            own.client.get(f"/models/crop-yield/versions/{version}").json()
            for version in own.client.get("/models/crop-yield").json()["versions"]
        ]
        published = [card["version"] for card in cards if card["job"] == job_id]
        assert published == ([job["version"]] if job["status"] == "succeeded" else [])
    # The rows of a job that was cancelled as it began are removed a moment later.
    wait_for(lambda: not list((own.state / "spool").glob("*")))


def test_a_version_that_cannot_be_promoted_is_named_by_the_failed_job(own: Service) -> None:
    (own.models / "stuck" / "current").mkdir(parents=True)

    job = own.train(model="stuck", instances=[{"a": 1}, {"a": 2}, {"a": 4}], targets=[{"y": 1}, {"y": 2}, {"y": 3}])

    assert job["status"] == "failed"
    assert job["version"] == 1
    assert "Version 1 is published, but could not be promoted" in job["error"]["detail"]


@pytest.mark.parametrize("promote", ["always", "if_better"])
def test_a_training_repairs_a_model_without_intact_versions(own: Service, promote: str) -> None:
    model = f"hurt-{promote.replace('_', '-')}"
    folder = own.models / model
    folder.mkdir()
    whole = (own.models / "crop-yield" / "000001.safetensors").read_bytes()
    (folder / "000001.safetensors").write_bytes(whole[:-1])
    (folder / "current").symlink_to("000001.safetensors")
    predict = f"/models/{model}/predict", {"instances": INPUTS[:1]}
    train = {**NOTEBOOK, "model": model, "feature_names": ["a", "b", "c"], "target_names": ["d", "e"]}
    for path, body in (predict, predict, ("/train", {**train, "mode": "update"})):
        refused = own.client.post(path, json=body)
        assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert refused.json()["type"].endswith("model-file-invalid")
    refusals = [record for record in own.records() if record["message"] == "version refused" and model in str(record)]
    assert len(refusals) == 1  # not one per request

    assert own.train(**train, promote=promote)["version"] == 2

    assert own.client.post(predict[0], json=predict[1]).json()["version"] == 2


@pytest.mark.slow
def test_a_full_queue_refuses_with_a_time_to_retry(tmp_path: Path) -> None:
    service = Service(tmp_path, max_queued_jobs="2").start()
    try:
        first = service.submit(**NOTEBOOK, solver=descent(epochs=10_000_000))
        next(job for job in service.follow(first) if job["status"] == "running")
        waiting = [service.submit(**NOTEBOOK) for _ in range(2)]
        refused = service.client.post("/train", json=NOTEBOOK)
        assert refused.status_code == httpx.codes.TOO_MANY_REQUESTS
        assert int(refused.headers["retry-after"]) > 0

        assert service.client.post(f"/jobs/{waiting[0]}/cancel").json()["status"] == "cancelled"
        assert len(list((service.state / "spool").glob("*"))) == 2
        service.client.post(f"/jobs/{first}/cancel")
        assert service.end_of(waiting[1])["status"] == "succeeded"
    finally:
        service.stop()
