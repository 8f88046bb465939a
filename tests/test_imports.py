"""Imports while processes are killed, and while the bucket fails."""

import contextlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from buckets import bucket_url, environment, faulty_proxy
from service import Service, arm, wait_for

from app.failpoints import Step

LINE: dict[str, Any] = {"features": ["x"], "targets": ["y"], "coefficients": [2], "intercept": 1}
ROW = {"instances": [[3]]}


def sent(service: Service, key: str) -> httpx.Response:
    return service.client.post("/models/line/versions", json=LINE, headers={"Idempotency-Key": key})


def versions(service: Service) -> list[int]:
    found: list[int] = service.client.get("/models/line").json()["versions"]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("in_bucket", [False, True], ids=["folder", "bucket"])
def test_an_import_that_a_kill_interrupts_is_published_once_or_not_at_all(tmp_path: Path, *, in_bucket: bool) -> None:
    steps = tmp_path / "steps"
    steps.mkdir()
    variables = {"CHAOS_FAILPOINTS": str(steps)}
    if in_bucket:
        variables |= environment() | {"LINSERVE_STORAGE": bucket_url()}
    service = Service(tmp_path, environment=variables, trainer_mode="external").start("/health/live")
    # The steps, and whether the version is published when the process is killed there.
    reached: dict[Step, bool] = {"prepared": False, "promoted": True}
    if not in_bucket:
        reached |= {"fsynced": False, "linked": True}
    try:
        assert sent(service, "first").json()["version"] == 1
        for step, is_published in reached.items():
            before = versions(service)
            arm(steps, step)
            with contextlib.suppress(httpx.TransportError):
                raise AssertionError(sent(service, step).text)
            service.kill()
            service.start("/health/live")
            assert len(versions(service)) == len(before) + is_published
            assert service.client.post("/models/line/predict", json=ROW).json()["predictions"] == [[7]]
            again = sent(service, step)
            assert again.status_code == 201, again.text
            assert versions(service) == [*before, again.json()["version"]]
            assert service.client.get("/models/line").json()["version"] == again.json()["version"]
        service.request_record(again)
        assert "Traceback" not in service.log.read_text()
    finally:
        service.kill()


@pytest.mark.slow
def test_an_import_while_the_bucket_fails_is_refused_as_a_whole(tmp_path: Path) -> None:
    with faulty_proxy() as proxy:
        service = Service(
            tmp_path, environment=environment(proxy.url), storage=bucket_url(), trainer_mode="external"
        ).start("/health/live")
        try:
            assert sent(service, "first").json()["version"] == 1
            proxy.set("refuse")
            refused = sent(service, "second")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert refused.json()["type"] == "urn:linserve:problem:store-unavailable"
            assert service.client.post("/models/line/predict", json=ROW).json()["version"] == 1
            proxy.set("ok")
            wait_for(lambda: service.client.get("/models/line").status_code == 200)
            assert versions(service) == [1]
            assert sent(service, "second").json()["version"] == 2
        finally:
            service.kill()
