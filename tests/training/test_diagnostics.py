"""The second look at the rows: when it happens, what it sees, and what it leaves when it cannot."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose
from starlette.datastructures import QueryParams
from tables import written

from app.data.training_rows import write_matrix
from app.errors import MemoryExceeded, TimeExceeded
from app.registry.card_diagnostics import diagnostics_faults
from app.registry.folder.publisher import FolderPublisher
from app.registry.merge_export import encode_for_merge
from app.registry.model_card import ModelCard
from app.registry.version_file import FileContent, read
from app.regression.solvers import Exact
from app.training.fragments.executors import Executor, Serial
from app.training.pipeline import TrainerContext, train
from app.training.planner import plan_file
from app.training.progress import JobCancelled, Progress, ProgressReporter
from app.training.request import TrainingRequest
from app.training.source_rows import file_set
from app.training.source_url import AllowedSources
from app.training.sources import resolve
from app.training.uploads import UploadStore
from app.web.schemas.train_query import from_query

RANDOM = np.random.default_rng(16)
COLUMNS = {
    "a": RANDOM.normal(size=60).round(3),
    "city": RANDOM.choice(["lima", "oslo", "rome"], size=60),
    "day": np.datetime64("2026-01-01") + RANDOM.integers(0, 300, 60),
    "sold": RANDOM.choice([True, False], size=60),
}
COLUMNS["y"] = (COLUMNS["a"] * 2 + (COLUMNS["city"] == "oslo") + RANDOM.normal(size=60)).round(3)
OUTLIER = 41  # the row, counted from 0, with by far the largest Cook's distance
COLUMNS["y"][OUTLIER] += 40
TABLE = pa.table(COLUMNS)


class Trainer:
    """Trains versions of models in a folder."""

    def __init__(self, folder: Path, **context: Any) -> None:
        (folder / "models").mkdir()
        self.registry = FolderPublisher(folder / "models")
        self.context = TrainerContext(self.registry, UploadStore(folder / "spool"), folder / "checkpoints", **context)

    def upload(self, content: bytes) -> str:
        upload = self.context.spool.new()
        with self.context.spool.open_new(upload) as file:
            file.write(content)
        return upload

    def plan(self, content: bytes, query: str = "targets=y", form: str = "csv") -> TrainingRequest:
        upload = self.upload(content)
        options = from_query(QueryParams(query))
        draft = options.to_request(default_model="m", upload=upload, format=form, fingerprint="")
        return plan_file(draft, self.context.spool.path(upload), self.registry, 1 << 30)

    def run(
        self, request: TrainingRequest, report: Callable[[Progress], object] = lambda _: None, seconds: float = 0
    ) -> ModelCard:
        def pass_on(progress: Progress, _: object) -> None:
            report(progress)

        return train(request, None, self.context, ProgressReporter(pass_on, lambda: False, seconds))

    def train(self, content: bytes, query: str = "targets=y", form: str = "csv") -> ModelCard:
        return self.run(self.plan(content, query, form))


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    return Trainer(tmp_path)


def csv(table: pa.Table = TABLE) -> bytes:
    lines = [",".join(table.column_names)]
    lines += [",".join("" if value is None else str(value) for value in row.values()) for row in table.to_pylist()]
    return "\n".join(lines).encode() + b"\n"


def found(card: ModelCard, target: str = "y") -> dict[str, Any]:
    """The diagnostics of a target, of a card with diagnostics that a later reader accepts."""
    assert card.no_diagnostics is None
    stored = msgspec.json.decode(msgspec.json.encode(card.diagnostics))
    assert list(diagnostics_faults(stored, card.targets)) == []
    targets: dict[str, Any] = stored["targets"]
    part: dict[str, Any] = targets[target]
    return part


def test_categories_dates_and_booleans_are_diagnosed_and_numbers_and_dates_have_partial_residuals(
    trainer: Trainer,
) -> None:
    target = found(trainer.train(csv()))
    assert None not in target.values()
    assert set(target["partial_residuals"]) == {"a", "day"}
    terms = found(trainer.train(csv(), "targets=y&terms=a,a^2,city,sold,sold:a"))
    assert set(terms["partial_residuals"]) == {"a", "a^2"}


@pytest.mark.parametrize(("form", "row"), [("csv", 43), ("parquet", 42), ("ndjson", 42), ("arrow", 42), ("excel", 43)])
def test_rows_have_the_numbers_that_messages_give_them(trainer: Trainer, form: str, row: int) -> None:
    entries = found(trainer.train(written(TABLE, form), form=form))["cooks_distance"]
    assert len(entries) == 20
    assert entries[0]["row"] == row
    assert entries[0]["distance"] > 3 * entries[1]["distance"]
    assert "file" not in entries[0]


def test_rows_that_are_left_out_keep_their_numbers(trainer: Trainer) -> None:
    lines = csv().decode().splitlines()
    lines[3] = ",".join(["", *lines[3].split(",")[1:]])
    lines[20] = lines[20].rpartition(",")[0] + ","
    card = trainer.train("\n".join(lines).encode())
    assert (card.dropped_rows, card.rows) == (2, 58)
    assert found(card)["cooks_distance"][0]["row"] == 43
    assert sum(map(sum, found(card)["residuals"]["counts"])) == 58
    assert any("2 row(s) were dropped" in warning for warning in card.warnings)


@pytest.mark.parametrize("executor", [None, Serial()], ids=["one after the other", "in fragments"])
def test_rows_of_several_files_are_named_by_their_file(tmp_path: Path, executor: Executor | None) -> None:
    (tmp_path / "data").mkdir()
    trainer = Trainer(tmp_path, executor=executor, sources=AllowedSources.parse(f"file://{tmp_path}/data"))
    for number in range(3):
        (tmp_path / "data" / f"part-{number}.csv").write_bytes(csv(TABLE.slice(20 * number, 20)))
    url = f"file://{tmp_path}/data/part-*.csv"
    draft = replace(trainer.plan(csv()), upload=trainer.context.spool.new(), source=url, features=(), fingerprint="s")
    files = resolve(url, trainer.context.sources)
    card = trainer.run(plan_file(draft, file_set(files, None), trainer.registry, 1 << 30))
    first = found(card)["cooks_distance"][0]
    assert (first["file"], first["row"]) == ("part-2.csv", OUTLIER - 40 + 2)
    whole = found(trainer.train(csv()))
    assert found(card)["durbin_watson"] == pytest.approx(whole["durbin_watson"], rel=1e-9)


@pytest.mark.parametrize("kind", ["precision", "frequency"])
def test_weights_count_as_their_kind_says(trainer: Trainer, kind: str) -> None:
    weights = np.arange(60) % 4
    content = csv(TABLE.append_column("w", pa.array(weights)))
    card = trainer.train(content, f"targets=y&weight=w&weight_kind={kind}")
    target = found(card)
    assert card.diagnostics is not None
    assert card.diagnostics["rows"] == (weights.sum() if kind == "frequency" else 45)
    assert (target["durbin_watson"] is None) is (kind == "frequency")
    assert target["breusch_pagan"] is not None
    assert target["cooks_distance"][0]["row"] == 43
    assert {entry["row"] for entry in target["cooks_distance"]}.isdisjoint(range(2, 62, 4))  # of weight 0


def test_rows_sent_as_numbers_are_counted_from_1_and_those_without_a_group_are_left_out(trainer: Trainer) -> None:
    x = np.stack([COLUMNS["a"], RANDOM.normal(size=60)], axis=1)
    folds = (np.arange(60) % 3).astype(float)
    folds[5] = np.nan
    upload = trainer.context.spool.new()
    with trainer.context.spool.open_new(upload) as file:
        write_matrix(file, x, COLUMNS["y"][:, np.newaxis], folds[:, np.newaxis])
    options = from_query(QueryParams("folds=3&groups=g"))
    request = options.to_request(default_model="m", upload=upload, format="matrix", fingerprint="")
    card = trainer.run(replace(request, features=("a", "b"), targets=("y",)))
    assert card.rows == 59
    assert found(card)["cooks_distance"][0]["row"] == OUTLIER + 1


def test_long_files_are_looked_at_again_only_on_request_and_short_ones_unless_switched_off(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path, diagnosed_rows=59)
    card = trainer.train(csv())
    assert card.diagnostics is None
    assert card.no_diagnostics is not None
    assert "There are 60 rows. More than 59 are read again only if" in card.no_diagnostics
    long = found(trainer.train(csv(), "targets=y&diagnostics=true"))
    assert long["quantiles"]["relative_error"] == 2**-11
    off = trainer.train(csv(TABLE.slice(0, 59)), "targets=y&diagnostics=false")
    assert (off.diagnostics, off.no_diagnostics) == (None, "The request had `diagnostics=false`.")
    short = found(trainer.train(csv(TABLE.slice(0, 59))))
    assert short["quantiles"]["relative_error"] == 0


def test_updates_forgets_and_merges_say_what_is_absent_and_why(trainer: Trainer) -> None:
    whole = trainer.train(csv())
    update = trainer.train(csv(TABLE.slice(0, 30)), "mode=update")
    forget = trainer.train(csv(TABLE.slice(0, 30)), "mode=forget")
    for card, start in (
        (update, "An update does not have the earlier rows"),
        (forget, "A forget does not have the rows"),
    ):
        assert card.diagnostics is None
        assert card.no_diagnostics is not None
        assert card.no_diagnostics.startswith(start)
        assert "Cook's distances" in card.no_diagnostics
    assert whole.diagnostics is not None
    assert trainer.train(csv()).diagnostics == whole.diagnostics  # the same rows again, byte for byte


def test_a_file_for_a_merge_has_no_diagnostics(trainer: Trainer) -> None:
    numbers = TABLE.select(["a", "y"])
    trainer.train(csv(numbers))
    version = trainer.registry.current("m")
    assert version.card.diagnostics is not None
    exported = read(FileContent(encode_for_merge(version, 10), "exported")).card
    assert (exported.diagnostics, exported.no_diagnostics) == (None, None)


class TooLittleMemory(contextlib.nullcontext[None]):
    """A context that is always out of memory."""

    def __enter__(self) -> None:
        raise MemoryExceeded("The training needs more memory than the trainer may use.")


def test_a_second_look_that_needs_too_much_memory_leaves_a_version_without_diagnostics(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path, within_memory=TooLittleMemory)
    card = trainer.train(csv())
    assert (card.version, card.promoted, card.rows) == (1, True, 60)
    assert card.diagnostics is None
    assert card.no_diagnostics == "The second look at the rows needs more memory than the trainer may use."


def test_rows_that_changed_after_the_fit_leave_a_version_without_diagnostics(trainer: Trainer) -> None:
    request = trainer.plan(csv())
    path = trainer.context.spool.path(request.upload)
    other = csv(TABLE.slice(0, 40))

    def shorten(progress: Progress) -> None:
        if progress.phase == "diagnosing" and progress.rows == 0:
            path.write_bytes(other)

    card = run_slowly(trainer, request, shorten)
    assert card.diagnostics is None
    assert card.no_diagnostics == "The rows could not be read again after the fit."
    assert_allclose(card.metrics["y"]["rmse"], trainer.train(csv()).metrics["y"]["rmse"])


class Clock:
    """Replaces the module `time`. Each call advances it by a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1
        return self.now


def run_slowly(trainer: Trainer, request: TrainingRequest, report: Callable[[Progress], object]) -> ModelCard:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.training.progress.time", Clock())
        return trainer.run(request, report)


def test_a_training_can_be_cancelled_during_the_second_look(trainer: Trainer) -> None:
    phases: list[str] = []

    def cancel(progress: Progress) -> None:
        phases.append(progress.phase)
        if progress.phase == "diagnosing":
            raise JobCancelled

    with pytest.raises(JobCancelled):
        run_slowly(trainer, trainer.plan(csv()), cancel)
    assert phases[-1] == "diagnosing"
    assert not trainer.registry.models()


def test_the_time_limit_of_a_job_holds_for_the_second_look(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("app.training.progress.time", clock)

    def wait(progress: Progress) -> None:
        if progress.phase == "diagnosing":
            clock.now += 1e6

    with pytest.raises(TimeExceeded):
        trainer.run(trainer.plan(csv()), wait, seconds=1000)
    assert not trainer.registry.models()


def test_a_training_that_is_run_again_looks_again_and_publishes_once(trainer: Trainer) -> None:
    request = trainer.plan(csv())

    def stop(progress: Progress) -> None:
        if progress.phase == "diagnosing":
            raise JobCancelled

    with pytest.raises(JobCancelled):
        run_slowly(trainer, request, stop)
    card = trainer.run(request)
    assert found(card)["cooks_distance"][0]["row"] == 43
    assert trainer.run(request).version == card.version == 1


def test_an_older_record_of_a_job_is_diagnosed_by_default(trainer: Trainer) -> None:
    record = trainer.plan(csv()).to_json()
    del record["diagnostics"]
    request = TrainingRequest.from_json(record)
    assert request.diagnostics is None
    assert isinstance(request.solver, Exact)
    assert found(trainer.run(request))
