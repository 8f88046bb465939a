"""Mistakes in tables, options and levels: no 5xx, bounded memory, and a message that states what to do."""

from typing import Any

import pytest
from service import Service
from web.table_mistakes import CSV, KINDS, MISTAKES, TableMistake

MAX_ANSWER_BYTES = 8000


@pytest.fixture(scope="module")
def kinds(service: Service) -> Service:
    """The service with a model of a category, a boolean, a date and a number."""
    headers = {"content-type": CSV, "prefer": "wait=60"}
    job = service.ended_job(service.client.post("/train?model=kinds&targets=y", content=KINDS, headers=headers))
    assert job["status"] == "succeeded", job
    return service


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.name for mistake in MISTAKES])
def test_a_mistake_in_a_table_is_refused_with_words_that_help(kinds: Service, mistake: TableMistake) -> None:
    headers = {"content-type": mistake.media_type, "prefer": "wait=60"}
    content = mistake.content() if callable(mistake.content) else mistake.content
    with kinds.growing_by_less_than(64 << 20):
        answer = kinds.client.post(mistake.path, content=content, headers=headers)
    assert answer.status_code < 500, answer.text
    assert len(answer.content) < MAX_ANSWER_BYTES
    is_late = answer.status_code == 202  # The job ended after the wait.
    job: dict[str, Any] = kinds.ended_job(answer) if is_late else answer.json()
    problem = job["error"] if isinstance(job.get("error"), dict) else job
    assert "detail" in problem, job.get("warnings", job)
    message = " ".join([problem["detail"], *(error["detail"] for error in problem.get("errors", []))])
    places = [f"{key} {value}" for error in problem.get("errors", []) for key, value in error.items()]
    text = " ".join([message, *places]).lower()
    assert [words for words in mistake.says if words.lower() not in text] == [], message
    assert problem["status"] == mistake.status, message
    assert kinds.client.get("/models/mistaken-table").status_code == 404


def test_there_are_at_least_60_mistakes_each_with_a_name() -> None:
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES) >= 60
