"""Uploads and checkpoints with a store: a request writes them on one machine, and a trainer reads them on another."""

import io
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

import buckets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_clock import Clock

from app.data.batch import RangedFile
from app.data.formats.parquet import PARQUET
from app.errors import SpoolFull, StoreUnavailable, Unavailable
from app.registry.folder.publisher import FolderPublisher
from app.regression.fit import fit_model
from app.regression.solvers import Exact, GradientDescent, Start
from app.regression.solvers.base import BestEpoch, Coefficients, TrainingState
from app.storage import BlobInfo, Store, open_store
from app.training import comparison, outages, pipeline, uploads
from app.training.checkpoints import Checkpoint, remove_checkpoint, sweep_checkpoints
from app.training.initial_coefficients import attach, detach
from app.training.outages import PatientFile, outlast
from app.training.pipeline import TrainerContext, train
from app.training.planner import plan_file
from app.training.progress import JobCancelled, LossCurve, ProgressReporter
from app.training.request import TrainingRequest
from app.training.uploads import UploadStore

ROWS = b"x,y\n" + b"".join(b"%d,%d\n" % (x, 2 * x + 1) for x in range(20))


class FaultyStore:
    """A store of which the named methods fail a number of times first."""

    def __init__(self, store: Store, failures: dict[str, int]) -> None:
        self._store, self.failures = store, failures

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if self.failures.get(name, 0) > 0:
                self.failures[name] -= 1
                raise StoreUnavailable("The store is unavailable.")
            return getattr(self._store, name)(*arguments, **options)

        return call


def faulty(store: Store, **failures: int) -> Store:
    return cast("Store", FaultyStore(store, failures))


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}/store" if request.param == "folder" else buckets.bucket_url())


@pytest.fixture
def folder_store(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}/store")


def no_wait(_: float) -> None:
    """Replace a pause between two tries."""


def written(spool: UploadStore, content: bytes = ROWS) -> str:
    upload = spool.new()
    with spool.open_new(upload) as file:
        file.write(content)
        spool.sync(file)
    return upload


def keys(store: Store) -> list[str]:
    return [blob.key for blob in store.list_blobs("")]


def context(folder: Path, store: Store, registry: FolderPublisher | None = None) -> TrainerContext:
    (folder / "models").mkdir(parents=True, exist_ok=True)
    return TrainerContext(
        registry or FolderPublisher(folder / "models"),
        UploadStore(folder / "spool", store=store),
        folder / "checkpoints",
        store=store,
    )


def reporter() -> ProgressReporter:
    return ProgressReporter(lambda *_: None, lambda: False)


def request_of(upload: str, form: str = "csv") -> TrainingRequest:
    return TrainingRequest(
        model="m",
        upload=upload,
        format=form,
        features=("x",),
        targets=("y",),
        solver=Exact(),
        promote="always",
        fingerprint="",
    )


def test_rows_handed_over_on_one_machine_are_trained_on_by_another(tmp_path: Path, store: Store) -> None:
    spool = UploadStore(tmp_path / "replica", store=store)
    upload = written(spool)
    spool.hand_over(upload)
    assert spool.is_empty()
    trainer = context(tmp_path / "trainer", store)

    card = train(request_of(upload), "job", trainer, reporter())

    assert card.rows == 20
    assert trainer.registry.current("m").model.coef.tolist() == [[pytest.approx(2)]]
    trainer.spool.remove(upload)
    assert trainer.spool.is_empty()
    assert keys(store) == []


def test_a_long_upload_is_copied_in_parts_and_arrives_unchanged(tmp_path: Path, store: Store) -> None:
    content = os.urandom(uploads.WHOLE_BYTES + 12345)
    spool = UploadStore(tmp_path / "replica", store=store)
    upload = written(spool, content)
    spool.hand_over(upload)

    found = UploadStore(tmp_path / "trainer", store=store).fetch(upload)

    assert found.read_bytes() == content
    assert [path.name for path in found.parent.iterdir()] == [upload]


def test_initial_coefficients_go_with_their_rows(tmp_path: Path, store: Store) -> None:
    spool = UploadStore(tmp_path / "replica", store=store)
    start = Start(weights=[[1.5]], intercept=[-0.25])
    request = replace(request_of(written(spool)), solver=GradientDescent(start=start))
    detached = detach(request, spool)
    spool.hand_over(request.upload)
    trainer = UploadStore(tmp_path / "trainer", store=store)

    assert attach(detached, trainer).solver == request.solver
    trainer.remove(request.upload)
    assert keys(store) == []


def test_an_upload_that_is_gone_is_reported(tmp_path: Path, store: Store) -> None:
    spool = UploadStore(tmp_path, store=store)
    with pytest.raises(Unavailable, match="rows of this job are not in the store"):
        spool.fetch(spool.new())
    with pytest.raises(Unavailable, match="rows of this job are not in the store"):
        spool.source(spool.new(), no_wait, ranged=True)


@pytest.mark.parametrize("method", ["put", "open_write"])
def test_an_upload_that_cannot_be_handed_over_leaves_nothing(tmp_path: Path, folder_store: Store, method: str) -> None:
    spool = UploadStore(tmp_path / "replica", store=faulty(folder_store, **{method: 1}))
    upload = written(spool, b"x" * (10 if method == "put" else uploads.WHOLE_BYTES + 1))

    with pytest.raises(StoreUnavailable):
        spool.hand_over(upload)

    assert spool.is_empty()
    assert keys(folder_store) == []


def test_removing_an_upload_does_not_need_the_store(tmp_path: Path, folder_store: Store) -> None:
    upload = written(replica := UploadStore(tmp_path / "replica", store=folder_store))
    replica.hand_over(upload)

    UploadStore(tmp_path / "other", store=faulty(folder_store, delete=1)).remove(upload)

    assert keys(folder_store) == [f"uploads/{upload}"]
    replica.sweep_store(needed=set(), ended={upload})
    assert keys(folder_store) == []


def test_a_sweep_removes_only_old_blobs_that_no_job_needs(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = UploadStore(tmp_path / "replica", store=store)
    orphan, waiting, ended = written(spool), written(spool), written(spool)
    for upload in (orphan, waiting, ended):
        spool.record_once(spool.start(upload), b"start")
        spool.hand_over(upload)
    store.put("uploads/a note of the operator", b"")
    store.put("models/m/pointer", b"")

    def left() -> list[str]:
        return [key for key in keys(store) if key.startswith("uploads/") and "note" not in key]

    spool.sweep_store({waiting}, {ended})
    assert left() == sorted(f"uploads/{name}" for one in (orphan, waiting) for name in (one, spool.start(one)))

    def aged(blob: BlobInfo) -> bool:
        return real(replace(blob, modified=blob.modified - timedelta(seconds=uploads.ORPHAN_SECONDS)))

    real = uploads.is_old
    monkeypatch.setattr(uploads, "is_old", aged)
    spool.sweep_store({waiting}, {ended})
    assert left() == [f"uploads/{waiting}", f"uploads/{waiting}.start"]
    assert {"uploads/a note of the operator", "models/m/pointer"} <= {*keys(store)}


@pytest.mark.parametrize("shared", [True, False])
def test_a_record_next_to_an_upload_is_written_once(tmp_path: Path, store: Store, *, shared: bool) -> None:
    one = UploadStore(tmp_path, store=store if shared else None)
    other = UploadStore(tmp_path, store=store if shared else None)
    name = one.files(one.new())
    assert one.recorded(name) is None
    assert one.record_once(name, b"first") == b"first"
    assert other.record_once(name, b"second") == b"first"
    assert other.recorded(name) == b"first"


def test_a_long_parquet_upload_is_read_in_ranges(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).normal(size=200_000)
    buffer = io.BytesIO()
    pq.write_table(pa.table({"x": rows, "y": 3 * rows, "z": rows + 1}), buffer, row_group_size=50_000)
    monkeypatch.setattr(uploads, "RANGED_BYTES", 1 << 20)
    spool = UploadStore(tmp_path / "replica", store=store)
    upload = written(spool, buffer.getvalue())
    draft = replace(request_of(upload, "parquet"), features=())
    request = plan_file(draft, spool.path(upload), FolderPublisher(tmp_path), 1 << 30)
    spool.hand_over(upload)
    trainer = context(tmp_path / "trainer", store)

    source = trainer.spool.source(upload, no_wait, ranged=True)
    card = train(request, "job", trainer, reporter())

    assert isinstance(source, RangedFile)
    assert card.rows == 200_000
    assert trainer.spool.is_empty(), "the upload was copied"
    assert PARQUET.metadata_bytes(source) == PARQUET.metadata_bytes(buffer.getvalue())


def test_a_job_outlasts_a_store_that_fails_for_a_while(
    tmp_path: Path, folder_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outages, "FIRST_PAUSE_SECONDS", 0.001)
    upload = written(replica := UploadStore(tmp_path / "replica", store=folder_store))
    replica.hand_over(upload)

    class Registry(FolderPublisher):
        failures = {"find": 2, "current": 2, "publish": 2}  # noqa: RUF012

        def __getattribute__(self, name: str) -> Any:
            failures = type(self).failures
            if failures.get(name, 0) > 0:
                failures[name] -= 1
                raise StoreUnavailable("The store is unavailable.")
            return super().__getattribute__(name)

    (tmp_path / "models").mkdir()
    trainer = context(tmp_path, faulty(folder_store, open_read=2, get=2, put=2), Registry(tmp_path / "models"))

    assert train(request_of(upload), "job", trainer, reporter()).rows == 20

    assert {*Registry.failures.values()} == {0}
    assert trainer.registry.versions("m") == [1]


def test_a_job_fails_with_the_reason_if_the_store_stays_away(
    tmp_path: Path, folder_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outages, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(outages, "MAX_OUTAGE_SECONDS", 0.05)
    trainer = context(tmp_path, faulty(folder_store, open_read=10**6))
    with pytest.raises(StoreUnavailable, match="is unavailable"):
        train(request_of("0" * 32), "job", trainer, reporter())


def test_a_job_that_waits_for_the_store_can_be_cancelled(
    tmp_path: Path, folder_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()

    def sleep(seconds: float) -> None:
        clock.now += seconds

    waiting = SimpleNamespace(monotonic=clock.monotonic, sleep=sleep)
    monkeypatch.setattr(outages, "time", waiting)
    monkeypatch.setattr("app.training.progress.time", clock)
    monkeypatch.setattr(outages, "FIRST_PAUSE_SECONDS", 60.0)
    trainer = context(tmp_path, faulty(folder_store, open_read=10**6))
    started = clock.now
    with pytest.raises(JobCancelled):
        train(request_of("0" * 32), "job", trainer, ProgressReporter(lambda *_: None, lambda: True))
    assert clock.now - started < 2


def test_a_fit_is_not_repeated_if_the_store_is_away_after_it(
    tmp_path: Path, folder_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outages, "FIRST_PAUSE_SECONDS", 0.001)
    fits, failures = list[None](), [StoreUnavailable("The store is unavailable.")] * 2
    fit, compare = fit_model, comparison.compare

    def counted(*args: Any, **options: Any) -> Any:
        fits.append(None)
        return fit(*args, **options)

    def compared(*args: Any) -> Any:
        if failures:
            raise failures.pop()
        return compare(*args)

    monkeypatch.setattr(pipeline, "fit_model", counted)
    monkeypatch.setattr(pipeline, "compare", compared)
    upload = written(trainer_spool := UploadStore(tmp_path / "replica", store=folder_store))
    trainer_spool.hand_over(upload)
    assert train(request_of(upload), "job", context(tmp_path, folder_store), reporter()).rows == 20
    assert (len(fits), failures) == (1, [])


def test_an_outage_begins_when_a_call_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(outages, "time", SimpleNamespace(monotonic=lambda: now[0]))
    errors: list[StoreUnavailable | SpoolFull] = [StoreUnavailable("away")]

    def long_call() -> str:
        now[0] += 2 * outages.MAX_OUTAGE_SECONDS
        if errors:
            raise errors.pop()
        return "done"

    assert outlast(long_call, lambda _: None) == "done"


@pytest.mark.parametrize(
    ("error", "message"),
    [(StoreUnavailable("x"), "waiting for the store"), (SpoolFull("x"), "waiting for room on the disk")],
)
def test_the_log_says_what_a_training_waits_for(
    error: StoreUnavailable | SpoolFull, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    errors = [error]

    def call() -> None:
        if errors:
            raise errors.pop()

    outlast(call, no_wait, (StoreUnavailable, SpoolFull))
    assert caplog.messages == [message]


def test_a_file_goes_on_at_the_same_place_after_an_outage() -> None:
    content = os.urandom(100_000)

    class Dropping(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if next(faults):
                raise StoreUnavailable("The connection was lost.")
            return super().read(size)

    faults: Iterator[bool] = iter([False, True, True, False, True] + [False] * 1000)
    waited: list[float] = []
    with io.BufferedReader(PatientFile(lambda: Dropping(content), waited.append), 1000) as file:
        assert file.read(10) == content[:10]
        file.seek(50_000)
        assert file.read() == content[50_000:]
        assert file.seek(-5, io.SEEK_END) == len(content) - 5
        assert file.read() == content[-5:]
    assert waited == [0.25, 0.5, 0.25]


def test_pauses_grow_up_to_a_limit() -> None:
    pauses: list[float] = []
    failures = iter([StoreUnavailable("away")] * 8)

    def call() -> str:
        for error in failures:
            raise error
        return "there"

    assert outlast(call, pauses.append) == "there"
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]


def open_bytes(content: bytes) -> Callable[[], BinaryIO]:
    return lambda: io.BytesIO(content)


@pytest.mark.parametrize("metadata", [10, 100_000, 3_000_000])
def test_the_footer_of_a_ranged_file_is_the_same_whatever_its_length(metadata: int) -> None:
    buffer = io.BytesIO()
    table = pa.table({"x": np.arange(1000.0)}).replace_schema_metadata({"note": "n" * metadata})
    pq.write_table(table, buffer)
    content = buffer.getvalue()
    results = []
    for source in (content, RangedFile(len(content), open_bytes(content))):
        try:
            results.append(str(PARQUET.column_names(source)))
        except Exception as error:
            results.append(repr(error))
    assert results[0] == results[1]


@pytest.mark.parametrize("length", [0, 3, 7, 8, 12, 50])
def test_a_ranged_file_that_is_cut_off_is_refused(length: int) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"x": np.arange(1000.0)}), buffer)
    content = buffer.getvalue()[-length:] if length else b""
    with pytest.raises(Exception, match="not readable as Parquet"):
        PARQUET.column_names(RangedFile(len(content), open_bytes(content)))


STATE = TrainingState(
    epoch=7,
    current=(zero := Coefficients(np.zeros((1, 1)), np.zeros(1))),
    velocity=zero,
    loss=2.0,
    monitored_loss=1.0,
    initial_loss=3.0,
    best=BestEpoch(6, zero, loss=1.0, monitored_loss=1.0),
)


def save(checkpoint: Checkpoint, epoch: int, clock: Clock) -> None:
    clock.now += 1
    checkpoint.save(replace(STATE, epoch=epoch), LossCurve())
    for thread in threading.enumerate():
        if thread.name == "checkpoint":
            thread.join()


def epoch_of(checkpoint: Checkpoint) -> int | None:
    run = checkpoint.load()
    return None if run is None else run.state.epoch


def test_a_descent_resumes_on_another_machine_from_the_newest_state(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.training.checkpoints.time", clock := Clock())
    one, other = (Checkpoint(tmp_path / name / "job.json", store=store) for name in ("one", "other"))
    assert epoch_of(one) is None
    save(one, 7, clock)
    assert epoch_of(other) == 7
    save(other, 9, clock)
    assert epoch_of(one) == 9

    remove_checkpoint(tmp_path / "one" / "job.json", store)
    assert keys(store) == []
    assert not (tmp_path / "one" / "job.json").exists()
    assert epoch_of(other) == 9, "the local one of this machine"


def test_a_descent_goes_on_if_the_store_takes_no_checkpoint(
    tmp_path: Path, folder_store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("app.training.checkpoints.time", clock := Clock())
    save(Checkpoint(tmp_path / "job.json", store=faulty(folder_store, put=1)), 7, clock)
    assert [record.message for record in caplog.records] == ["checkpoint not saved"]
    assert epoch_of(Checkpoint(tmp_path / "job.json", store=folder_store)) == 7


def test_a_sweep_removes_old_checkpoints_of_ended_jobs(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for job in ("running", "ended"):
        store.put(f"checkpoints/{job}.json", b"{}")
    sweep_checkpoints(store, {"running"})
    assert len(keys(store)) == 2
    monkeypatch.setattr("app.training.checkpoints.is_old", lambda _: True)
    sweep_checkpoints(store, {"running"})
    assert keys(store) == ["checkpoints/running.json"]
