"""An upload is removed if its request ends before a job takes it over."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.requests import Request

from app.data.formats.csv import CSV
from app.errors import Unavailable, WorkerBusy
from app.storage.memory_budget import MemoryBudget, Reservation
from app.training.uploads import UploadStore
from app.web import merges, submissions
from app.web.receiving import ReceivedUpload, received_upload
from app.web.schemas.merge import MergeOptions
from app.web.schemas.train import FileOptions
from app.web.state import Services


def write(uploads: UploadStore, name: str) -> None:
    with uploads.open_new(name) as file:
        file.write(b"rows")
        uploads.sync(file)


def fail_after_receipt(uploads: UploadStore, upload: ReceivedUpload, error: BaseException, *, taken: bool) -> None:
    write(uploads, upload.name)
    if taken:
        upload.take()
    raise error


@pytest.mark.parametrize("error", [WorkerBusy("busy"), asyncio.CancelledError()])
def test_an_error_after_the_last_byte_removes_the_upload(tmp_path: Path, error: BaseException) -> None:
    uploads = UploadStore(tmp_path)
    with pytest.raises(type(error)), received_upload(uploads) as upload:
        fail_after_receipt(uploads, upload, error, taken=False)
    assert uploads.is_empty()
    with pytest.raises(Unavailable):  # the thread that would record the job starts after all
        upload.take()


def test_a_client_that_goes_away_while_its_job_is_recorded_leaves_the_rows(tmp_path: Path) -> None:
    uploads = UploadStore(tmp_path)
    with pytest.raises(asyncio.CancelledError), received_upload(uploads) as upload:
        fail_after_receipt(uploads, upload, asyncio.CancelledError(), taken=True)
    assert uploads.path(upload.name).read_bytes() == b"rows"


@pytest.mark.parametrize("route", ["file", "merge"])
def test_a_route_leaves_nothing_if_it_fails_before_its_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    """Options may be refused and all slots be taken after the last byte has been received."""
    uploads = UploadStore(tmp_path)
    jobs = SimpleNamespace(uploads=uploads, check_room=lambda _: None)
    services = cast("Services", SimpleNamespace(jobs=jobs, max_upload_bytes=1000, default_model="m"))
    received: list[bool] = []

    def fail(*_: Any, **__: Any) -> None:
        received.append(not uploads.is_empty())
        raise WorkerBusy("The worker is busy.")

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x,y\n1,2\n"}

    media_type = b"text/csv" if route == "file" else b"application/octet-stream"
    headers = [(b"content-type", media_type), (b"content-length", b"8")]
    state = {"memory": Reservation(MemoryBudget(1 << 24))}
    scope = {"type": "http", "method": "POST", "headers": headers, "query_string": b"", "state": state}
    request = Request(scope, receive)
    monkeypatch.setattr(FileOptions, "to_request", fail)
    monkeypatch.setattr(MergeOptions, "to_request", fail)
    call = (
        submissions.submit_file(services, request, CSV, "job")
        if route == "file"
        else merges.submit_versions(services, request, "m", "job")
    )
    with pytest.raises(WorkerBusy):
        asyncio.run(call)
    assert received == [True]
    assert uploads.is_empty()
