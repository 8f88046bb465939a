"""Connections break before, while and after a request is sent: the call succeeds, and there is one job."""

from pathlib import Path

import pytest
from breaking_line import Break, BreakingLine
from service import INPUTS, JOB_SECONDS, TARGETS, Service

import linserve
from linserve import Client, Retries

QUICK = Retries(base=0.01, longest=0.05)
# The service refuses further attempts until it notices that the connection of the first one is broken.
PATIENT = Retries(1000, base=0.01, longest=0.05)
ROWS = [
    dict(zip(("temp", "rainfall", "humidity", "apples", "oranges"), (*x, *y), strict=True))
    for x, y in zip(INPUTS, TARGETS, strict=True)
]


def train(url: str, model: str, **options: int) -> linserve.Job:
    with Client(url, retries=PATIENT) as client:
        return client.train(ROWS, model=model, targets=["apples", "oranges"], **options)  # type: ignore[arg-type]


def test_a_training_whose_connection_breaks_in_every_way_is_one_job(publishing: Service) -> None:
    model, breaks = "broken", list[Break](("cut", "swallow", "refuse", "half"))
    with BreakingLine(publishing.url, *breaks) as line:
        job = train(line.url, model)
        assert line.connections > len(breaks)
    with Client(publishing.url) as client:
        assert [other.id for other in client.jobs(model=model)] == [job.id]
        client.job(job.id).wait(timeout=JOB_SECONDS)
        assert client.versions(model) == [1]


def test_a_response_that_is_lost_more_often_than_there_are_retries_is_an_error(publishing: Service) -> None:
    with BreakingLine(publishing.url, "swallow", "swallow", "swallow") as line:
        with (
            Client(line.url, retries=Retries(2, base=0.01)) as client,
            pytest.raises(linserve.ConnectionFailed, match=f"broke at {line.url}"),
        ):
            client.models()
        assert line.connections == 3


def test_predictions_are_whole_when_the_response_broke_off(publishing: Service, tmp_path: Path) -> None:
    rows = "temp,rainfall,humidity\n" + "75,63,44\n" * 1000
    with BreakingLine(publishing.url, "half") as line, Client(line.url, retries=QUICK) as client:
        found = client.predict(rows.encode(), output=tmp_path / "predictions.csv")

    assert found == linserve.TablePrediction("crop-yield", 1, 0)
    assert (tmp_path / "predictions.csv").read_text().count("\n") == 1001
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]


def test_an_open_file_is_sent_again_from_where_it_was(publishing: Service, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("# a comment\ntemp,rainfall,humidity\n" + "75,63,44\n" * 1000)
    with (
        BreakingLine(publishing.url, "swallow") as line,
        Client(line.url, retries=QUICK) as client,
        path.open("rb") as file,
    ):
        file.readline()
        assert client.predict(file).count(b"\n") == 1001


def test_a_wait_goes_on_when_the_events_break_off(publishing: Service) -> None:
    seen = []
    with Client(publishing.url) as client:
        job = client.train(ROWS, model="waited", targets=["apples", "oranges"])
        with (
            BreakingLine(publishing.url, "refuse", "swallow", "refuse") as line,
            Client(line.url, retries=QUICK) as other,
        ):
            other.job(job.id).wait(lambda job: seen.append(job.status), timeout=JOB_SECONDS)
            assert line.connections >= 4

    assert seen == [] or seen[-1] == "succeeded"


def test_a_deletion_whose_response_is_lost_succeeds(publishing: Service) -> None:
    with Client(publishing.url) as client:
        for _ in range(2):
            client.train(ROWS, model="deleted", targets=["apples", "oranges"]).wait(timeout=JOB_SECONDS)
        with BreakingLine(publishing.url, "swallow") as line, Client(line.url, retries=QUICK) as other:
            other.delete("deleted", 1)
        assert client.versions("deleted") == [2]
