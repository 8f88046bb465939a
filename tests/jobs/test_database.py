"""Connections to the database of jobs, and what of its URL is logged."""

import socket
from pathlib import Path

import pytest
from dbos._utils import retriable_postgres_exception
from postgres import Postgres
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app.jobs import postgres as connections
from app.jobs.dbos_database import redact_url
from app.jobs.dbos_store import DBOSStore


def test_no_password_of_a_url_is_logged() -> None:
    redacted = redact_url("postgresql://me:FIRST@host/jobs?password=SECOND&sslpassword=THIRD&sslmode=require")
    assert redacted == "postgresql://me:***@host/jobs"
    assert redact_url("sqlite:////state/jobs.sqlite") == "sqlite:////state/jobs.sqlite"


@pytest.mark.parametrize("reason", ["failed to resolve host", "connection is bad"])
def test_dbos_retries_a_connection_that_cannot_be_made(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror("Temporary failure in name resolution")

    url = "postgresql://me@database/jobs"
    if "resolve" in reason:
        monkeypatch.setattr(socket, "getaddrinfo", fail)
    else:
        url = "postgresql://me@127.0.0.1:1/jobs?sslmode=unknown"
    with pytest.raises(OperationalError, match=reason) as failure:
        connections.new_engine(url).connect()
    assert retriable_postgres_exception(failure.value)


@pytest.mark.parametrize("retries", [True, False])
def test_dbos_retries_a_statement_that_took_too_long_for_a_trainer_only(postgres: Postgres, retries: bool) -> None:
    engine = connections.new_engine(postgres.url("postgres"), statement_seconds=0.05, retries_timeouts=retries)
    with pytest.raises(OperationalError, match="statement timeout") as failure, engine.connect() as connection:
        connection.execute(text("SELECT pg_sleep(20)"))
    assert retriable_postgres_exception(failure.value) is retries
    engine.dispose()


def test_a_job_is_recorded_although_the_connection_with_the_lock_was_cut(postgres: Postgres, tmp_path: Path) -> None:
    store = DBOSStore(postgres.new_job_database())
    recorded = False
    with store.adding(tmp_path / "lock"):
        postgres.cut_connections()
        assert store.unfinished() == []
        recorded = True
    assert recorded
    with store.adding(tmp_path / "lock"):
        pass
    store.close()
