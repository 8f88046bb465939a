import asyncio

import httpx
import pytest

from app.main import create_app


def test_a_bug_is_a_problem_without_details_and_a_record_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = create_app()

    @app.get("/boom")
    async def boom() -> None:
        raise RuntimeError("secret")

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.get("/boom", headers={"x-request-id": "mine"})

    answer = asyncio.run(ask())

    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:linserve:problem:internal-error"
    assert answer.json()["request_id"] == answer.headers["x-request-id"] == "mine"
    assert "secret" not in answer.text
    assert "secret" in caplog.text
