"""Trainings on several files, which equal a training on one file with the same rows."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import buckets
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose

from app.data.batch import Columns
from app.data.columns.options import ReadingOptions
from app.data.formats import BY_NAME
from app.data.formats.file_set import known_format
from app.data.limits import decode_limits
from app.errors import BodyTooLarge, Forbidden, InvalidInput, SourceChanged, Unavailable
from app.registry.folder.publisher import FolderPublisher
from app.registry.version_file import Version
from app.regression.solvers import Exact
from app.storage import Store, open_store
from app.storage.temp import TempStorage
from app.training import sources
from app.training.fragments.executors import Executor, Serial
from app.training.pipeline import TrainerContext, train
from app.training.planner import plan_file
from app.training.progress import ProgressReporter
from app.training.request import TrainingRequest
from app.training.source_rows import file_set, files_of, first_files, local_copies
from app.training.source_url import AllowedSources
from app.training.sources import resolve
from app.training.uploads import UploadStore

SUFFIX = {"csv": "csv", "parquet": "parquet", "arrow": "feather"}


def table(rows: int = 90) -> pa.Table:
    rng = np.random.default_rng(7)
    x = rng.normal(size=rows)
    level = np.array(["a", "b", "c"])[np.arange(rows) * 3 // rows]  # each file has levels of its own
    y = 2 * x + (level == "b") - 3 * (level == "c") + 0.1 * rng.normal(size=rows)
    return pa.table({"x": x, "level": level, "y": y})


def written(rows: pa.Table, form: str) -> bytes:
    out = io.BytesIO()
    if form == "csv":
        pa_csv.write_csv(rows, out)
    elif form == "parquet":
        pq.write_table(rows, out, row_group_size=10)
    else:
        with pa.ipc.new_file(out, rows.schema) as writer:
            writer.write_table(rows, max_chunksize=10)
    return out.getvalue()


class Bench:
    """A trainer, and a place for files that it may read: a folder or a bucket."""

    def __init__(self, folder: Path, place: str, executor: Executor | None = None) -> None:
        (folder / "models").mkdir()
        (folder / "data").mkdir()
        self.folder = folder
        bucket = buckets.bucket_url().rsplit("/", 1)[0] if place == "bucket" else None
        self.url = f"file://{folder}/data" if bucket is None else f"{bucket}/data"
        self.bucket = None if bucket is None else open_store(bucket)
        self.allowed = AllowedSources.parse(self.url)
        self.context = TrainerContext(
            FolderPublisher(folder / "models"),
            UploadStore(folder / "spool"),
            folder / "checkpoints",
            sources=self.allowed,
            executor=executor,
        )

    def put(self, name: str, content: bytes) -> None:
        if self.bucket is None:
            (self.folder / "data" / name).write_bytes(content)
        else:
            self.bucket.put(f"data/{name}", content)

    def put_all(self, rows: pa.Table, form: str, files: int = 3) -> str:
        """Divide the rows into files, and return the URL of all of them."""
        size = -(-len(rows) // files)
        for number in range(files):
            self.put(f"part-{number}.{SUFFIX[form]}", written(rows.slice(number * size, size), form))
        return f"{self.url}/part-*.{SUFFIX[form]}"

    def plan(self, url: str, model: str = "m", **options: Any) -> TrainingRequest:
        files = resolve(url, self.allowed)
        draft = TrainingRequest(
            model=model,
            upload=self.context.spool.new(),
            format=files.format,
            features=(),
            targets=("y",),
            solver=Exact(),
            promote="always",
            fingerprint="",
            source=url,
        )
        draft = replace(draft, **options)
        return plan_file(draft, file_set(files, None), self.context.registry, 1 << 30)

    def run(self, request: TrainingRequest) -> Version:
        card = train(request, "job", self.context, ProgressReporter(lambda *_: None, lambda: False))
        return self.context.registry.version(card.model, card.version)

    def train(self, url: str, model: str = "m", **options: Any) -> Version:
        return self.run(self.plan(url, model, **options))


@pytest.fixture(params=["folder", "bucket", "bucket in fragments"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    place, _, way = request.param.partition(" ")
    return Bench(tmp_path, place, Serial() if way else None)


@pytest.fixture(params=["one pass", "fragments"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    return Bench(tmp_path, "folder", Serial() if request.param == "fragments" else None)


def assert_same(one: Version, other: Version) -> None:
    assert one.card.columns == other.card.columns
    assert one.card.rows == other.card.rows
    assert_allclose(one.model.coef, other.model.coef, rtol=1e-12)
    assert_allclose(one.model.intercept, other.model.intercept, rtol=1e-12)


@pytest.mark.parametrize("form", SUFFIX)
def test_several_files_train_the_same_model_as_one(anywhere: Bench, form: str) -> None:
    rows = table()
    anywhere.put(f"whole.{SUFFIX[form]}", written(rows, form))

    several = anywhere.train(anywhere.put_all(rows, form), "several", folds=5)
    whole = anywhere.train(f"{anywhere.url}/whole.{SUFFIX[form]}", "whole", folds=5)

    assert_same(several, whole)
    assert several.card.columns == ("x", "level[b]", "level[c]")
    assert several.card.validation == whole.card.validation
    assert several.card.metrics["y"] == pytest.approx(whole.card.metrics["y"], rel=1e-9)


def test_files_update_and_are_forgotten(bench: Bench) -> None:
    rows = table()
    bench.put_all(rows, "parquet")
    first = bench.train(f"{bench.url}/part-0.parquet", terms=("x",))
    updated = bench.train(f"{bench.url}/part-?.parquet", mode="update")
    assert (first.card.rows, updated.card.rows) == (30, 120)
    forgotten = bench.train(f"{bench.url}/part-0.parquet", mode="forget")
    assert forgotten.card.rows == 90


CSV = "x,level,y\n1,a,3\n2,b,4.5\n4,c,7\n3,a,6.5\n"


@pytest.mark.parametrize(
    ("faulty", "message"),
    [
        (CSV.replace("4.5", "oops"), r'Row 3 of part-1\.csv, column "y"'),
        (CSV.replace("4.5", "inf"), r'Row 3 of part-1\.csv, column "y"'),
        (CSV.replace("2,b,4.5", "2,b"), r"part-1\.csv: Row 3: Expected 3 values, found 2"),
        (CSV.replace("level", "grade"), r'part-1\.csv: The columns are not those of part-0\.csv: it lacks "level"'),
        (CSV.replace("x,level,y", "x,level,y,z").replace("5\n", "5,1\n"), r'part-1\.csv: .*it also has "z"'),
        ("", r"part-1\.csv: The"),
        ("PAR1" + "\0" * 20, r"part-1\.csv: The file is a Parquet file, but CSV was expected"),
    ],
)
def test_a_fault_names_its_file_and_the_row_in_it(bench: Bench, faulty: str, message: str) -> None:
    for number, content in enumerate((CSV, faulty, CSV)):
        bench.put(f"part-{number}.csv", content.encode())
    with pytest.raises(InvalidInput, match=message) as error:
        bench.train(f"{bench.url}/*.csv")
    assert {detail.file for detail in error.value.details} == {"part-1.csv"}
    assert "ow 3" not in message or error.value.details[0].row == 3


def test_the_first_row_with_a_gap_that_is_refused_is_named(bench: Bench) -> None:
    for number in range(3):
        bench.put(f"part-{number}.csv", CSV.replace("4.5", "" if number == 2 else "4.5").encode())
    with pytest.raises(InvalidInput, match=r'Row 3 of part-2\.csv, column "y": The value is missing'):
        bench.train(f"{bench.url}/*.csv", reading=ReadingOptions(missing="refuse"))


def test_a_fault_of_the_header_names_the_first_file(bench: Bench) -> None:
    bench.put("part-0.csv", CSV.replace("y", "z").encode())
    with pytest.raises(InvalidInput, match='column "y" expected'):
        bench.train(f"{bench.url}/*.csv")


def test_a_rounded_integer_is_noted_with_its_file(bench: Bench) -> None:
    for number in range(2):
        bench.put(f"part-{number}.csv", CSV.replace("4.5", "9007199254740993" if number else "4.5").encode())
    card = bench.train(f"{bench.url}/*.csv").card
    assert any("first in row 3 of part-1.csv" in warning for warning in card.warnings)


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_column_of_another_type_names_its_file(bench: Bench, form: str) -> None:
    url = bench.put_all(table(), form)
    bench.put(f"part-1.{SUFFIX[form]}", written(pa.table({"x": ["1"], "level": ["a"], "y": [2.0]}), form))
    with pytest.raises(InvalidInput, match=r'part-1\..*Column "x": The type is string, but in part-0.* it is number'):
        bench.train(url)
    as_integers = table(30).set_column(0, "x", pa.array(range(30), pa.int16()))
    bench.put(f"part-1.{SUFFIX[form]}", written(as_integers, form))
    assert bench.train(url, "other").card.rows == 90


def test_the_files_are_fixed_when_the_job_first_runs(bench: Bench) -> None:
    rows = table()
    request = bench.plan(bench.put_all(rows, "csv"))
    bench.put("part-1.csv", written(rows.slice(0, 20), "csv"))  # before the job runs

    assert files_of(request, bench.allowed, bench.context.spool) is not None  # an attempt that is interrupted
    bench.put("part-9.csv", written(rows, "csv"))
    assert bench.run(request).card.rows == 80

    bench.context.spool.remove(request.upload)
    assert bench.context.spool.is_empty()


def test_a_file_that_changes_during_the_job_fails_it(anywhere: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    url = anywhere.put_all(table(), "parquet")
    request = anywhere.plan(url)
    real = BY_NAME["parquet"].batches
    changed: list[int] = []

    def changing(*arguments: Any) -> Iterator[Any]:
        yield from real(*arguments)
        if not changed:
            changed.append(1)
            for number in range(2):  # one that was read, and one that is read next
                anywhere.put(f"part-{number}.parquet", written(table(30), "parquet"))

    monkeypatch.setattr(type(BY_NAME["parquet"]), "batches", lambda _, *arguments: changing(*arguments))
    with pytest.raises(SourceChanged, match=r"part-[01]\.parquet: the file was changed or removed"):
        anywhere.run(replace(request, features=("x",)))


def test_a_source_is_resolved_again_by_the_trainer_with_its_own_prefixes(bench: Bench) -> None:
    request = bench.plan(bench.put_all(table(), "csv"))
    other = replace(bench.context, sources=AllowedSources.parse("file:///srv"))
    with pytest.raises(Exception, match="may not read this source"):
        train(request, "job", other, ProgressReporter(lambda *_: None, lambda: False))


def test_recorded_files_are_checked_by_the_trainer(bench: Bench) -> None:
    request = bench.plan(bench.put_all(table(), "csv"))
    uploads = bench.context.spool
    assert files_of(request, bench.allowed, uploads) is not None
    with pytest.raises(Forbidden):
        files_of(request, AllowedSources.parse("file:///srv"), uploads)
    for content in (b"{", b"[]", b"\xff"):
        uploads.path(uploads.files(request.upload)).write_bytes(content)
        with pytest.raises(Unavailable, match="damaged"):
            files_of(request, bench.allowed, uploads)


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_file_that_decompresses_to_too_much_at_once_is_refused(
    anywhere: Bench, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(decode_limits, "HELD_BYTES", 1 << 16)
    zeros = pa.table({"x": np.zeros(1 << 16), "y": np.zeros(1 << 16)})
    content = io.BytesIO()
    if form == "parquet":
        pq.write_table(zeros, content, use_dictionary=False, compression="zstd", data_page_size=1 << 24)
    else:
        with pa.ipc.new_stream(content, zeros.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(zeros)
    anywhere.put(f"part-0.{SUFFIX[form]}", content.getvalue())
    url = f"{anywhere.url}/part-0.{SUFFIX[form]}"
    if not anywhere.url.startswith("file:"):  # Their rows are bounded by the memory of the trainer.
        files = first_files(resolve(url, anywhere.allowed), 1 << 20)
        scratch = TempStorage(anywhere.context.checkpoints / "scratch", 1 << 20)
        with local_copies(files, scratch, 1 << 20) as rows, pytest.raises(InvalidInput, match="memory at once"):
            known_format(form, rows).check_size(rows, ["x", "y"], 1 << 20)
        return
    with pytest.raises(InvalidInput, match="memory at once"):
        anywhere.train(url)


def test_the_rows_of_inspected_files_are_bounded_together(bench: Bench) -> None:
    files = resolve(bench.put_all(table(), "csv"), bench.allowed)
    scratch = TempStorage(bench.context.checkpoints / "scratch", 1 << 20)
    with local_copies(files, scratch, 100) as rows, pytest.raises(BodyTooLarge):
        list(known_format("csv", rows).cells(rows, Columns(["x", "y"], missing=True)))


def test_a_file_in_another_format_is_named_in_words_for_files(bench: Bench) -> None:
    for form, content, message in (
        ("csv", written(table(), "parquet"), r"The file is a Parquet file, but .* was expected\. Correct `format`"),
        ("parquet", b"PAR1", "The file is not readable as Parquet"),
        ("arrow", b"\xff\xff\xff\xff" + b"\0" * 40, "The file is not readable as an Arrow IPC stream"),
    ):
        url = bench.put_all(table(), form)
        request = bench.plan(url)
        for number in range(3):
            bench.put(f"part-{number}.{SUFFIX[form]}", content)
        with pytest.raises(InvalidInput, match=message) as refused:
            bench.run(request)
        assert "body" not in str(refused.value.message).lower()
        assert "Content-Type" not in refused.value.message


def test_planning_reads_only_the_beginning_of_the_first_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, "bucket")
    url = bench.put_all(table(30_000), "arrow")
    read: list[tuple[str, int]] = []

    class Counting(io.BytesIO):
        def __init__(self, content: bytes, key: str) -> None:
            super().__init__(content)
            self._key = key

        def read(self, size: int | None = -1, /) -> bytes:
            content = super().read(size)
            read.append((self._key, len(content)))
            return content

    class Reader:
        def __init__(self, store: Store) -> None:
            self._store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

        def open_read(self, key: str, _etag: str) -> io.BytesIO:
            return Counting(self._store.get(key).content, key)

    assert bench.bucket is not None
    store = Reader(bench.bucket)
    monkeypatch.setattr(sources, "_store", lambda _: store)

    assert bench.plan(url).features == ("x", "level")

    assert {key for key, _ in read} == {"data/part-0.feather"}
