"""Jobs whose parent changes between their start and their publication."""

import os
import random
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from registries import EVERYWHERE, Place

from app.data.training_rows import write_matrix
from app.errors import Conflict, InvalidInput, ModelFileInvalid, PromotionFailed, TimeExceeded
from app.exchange.json_reader import JsonImport
from app.exchange.publishing import to_version
from app.registry.folder.publication import file_name
from app.registry.model_card import ModelCard
from app.registry.origin import Imported
from app.registry.version_file import encode
from app.regression.least_squares import fit
from app.regression.solvers import Exact, GradientDescent, Start
from app.regression.summaries import summarise
from app.regression.training_batch import TrainingBatch
from app.training.pipeline import TrainerContext, train
from app.training.progress import JobCancelled, Progress, ProgressReporter
from app.training.request import TrainingRequest
from app.training.uploads import UploadStore

RANDOM = np.random.default_rng(5)
X = RANDOM.normal((3, 50), size=(120, 2))
Y = X @ [[1.0], [2.0]] + RANDOM.normal(size=(120, 1))
DESCENT = GradientDescent(device="cpu", epochs=30, learning_rate=0.05, standardize=True)
FROM_CURRENT = replace(DESCENT, start="current")


class Line:
    """The versions of one model."""

    def __init__(self, folder: Path, place: Place | None = None) -> None:
        self.place = place or Place.new("folder", folder)
        self.registry = self.place.open()
        self.context = TrainerContext(self.registry, UploadStore(folder / "spool"), folder / "checkpoints")

    def request(self, rows: slice, **options: Any) -> TrainingRequest:
        upload = self.context.spool.new()
        with self.context.spool.open_new(upload) as file:
            write_matrix(file, X[rows], Y[rows])
        plain = TrainingRequest(
            model="m",
            upload=upload,
            format="matrix",
            features=("a", "b"),
            targets=("y",),
            solver=Exact(),
            promote="always",
            fingerprint="",
        )
        return replace(plain, **options)

    def run(
        self,
        request: TrainingRequest,
        at: Callable[[Progress], object] = lambda _: None,
        cancelled: Callable[[], bool] = lambda: False,
        seconds: float = 0,
    ) -> ModelCard:
        """Train; `at` is called with every progress that is reported."""

        def report(progress: Progress, _: object) -> None:
            at(progress)

        return train(request, None, self.context, ProgressReporter(report, cancelled, seconds))

    def train(self, rows: slice, **options: Any) -> ModelCard:
        return self.run(self.request(rows, **options))

    def assert_current_is_the_fit_of(self, rows: slice) -> None:
        model = self.registry.current("m").model
        best = fit(summarise([TrainingBatch(X[rows], Y[rows])]), Exact())
        assert model.statistics.rows == len(X[rows])
        assert_allclose(model.coef, best.coef, rtol=1e-9)
        assert_allclose(model.residual_norms, best.residual_norms, rtol=1e-9)


@pytest.fixture
def line(tmp_path: Path, place: Place) -> Line:
    return Line(tmp_path, place)


def once_publishing(act: Callable[[], object]) -> Callable[[Progress], None]:
    """Do something when a job is about to publish for the first time."""
    waiting = [act]

    def at(progress: Progress) -> None:
        if progress.phase == "publishing" and waiting:
            waiting.pop()()

    return at


@EVERYWHERE
def test_no_update_is_lost_if_another_one_overtakes_it(line: Line) -> None:
    line.train(slice(40))
    overtaken = line.request(slice(40, 80), mode="update")
    card = line.run(overtaken, once_publishing(lambda: line.train(slice(80, 120), mode="update")))
    assert (card.version, card.parent) == (3, 2)
    assert line.registry.current_number("m") == 3
    line.assert_current_is_the_fit_of(slice(120))


@EVERYWHERE
def test_an_update_is_fitted_again_each_time_it_is_overtaken(line: Line) -> None:
    line.train(slice(20))
    parts = [slice(start, start + 20) for start in (40, 60, 80, 100)]

    def at(progress: Progress) -> None:
        if progress.phase == "publishing" and parts:
            line.train(parts.pop(), mode="update")

    card = line.run(line.request(slice(20, 40), mode="update"), at)
    assert (card.version, card.parent) == (6, 5)
    line.assert_current_is_the_fit_of(slice(120))


@EVERYWHERE
def test_no_update_of_three_processes_that_are_killed_at_random_is_lost(line: Line, tmp_path: Path) -> None:
    line.train(slice(3))
    requests = [[line.request(slice(3 * start, 3 * start + 3), mode="update") for start in range(4)] for _ in range(3)]
    ended = tmp_path / "ended"
    ended.mkdir()

    def work(own: list[TrainingRequest], seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)  # ends this process wherever it is by then, as a kill does
        for request in own:
            if not (ended / request.upload).exists():
                line.run(request)
                (ended / request.upload).touch()

    rounds = 0
    while len(list(ended.iterdir())) < 12:
        rounds += 1
        children = []
        for own in requests:
            seconds = random.uniform(0.02, 0.1 * rounds)  # noqa: S311 - random faults are no secrets
            if (child := os.fork()) == 0:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                try:
                    work(own, seconds)
                finally:
                    os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)

    versions = line.registry.versions("m")
    cards = [line.registry.version("m", number).card for number in versions]
    assert line.registry.current("m").card.rows == 3 * (1 + 12)
    assert [card.parent for card in cards] == [None, *versions[:-1]]
    assert len({card.upload for card in cards}) == len(cards) == 13


def test_the_rows_of_an_overtaken_update_are_read_once(line: Line) -> None:
    line.train(slice(40))
    requested = line.request(slice(40, 80), mode="update")

    def overtake() -> None:
        line.train(slice(80, 120), mode="update")
        line.context.spool.remove(requested.upload)

    line.run(requested, once_publishing(overtake))
    line.assert_current_is_the_fit_of(slice(120))


@EVERYWHERE
def test_a_forget_that_is_overtaken_takes_its_rows_out_of_the_version_that_is_current(line: Line) -> None:
    line.train(slice(80))
    requested = line.request(slice(40), mode="forget")
    card = line.run(requested, once_publishing(lambda: line.train(slice(80, 120), mode="update")))
    assert (card.mode, card.version, card.parent) == ("forget", 3, 2)
    line.assert_current_is_the_fit_of(slice(40, 120))


@pytest.mark.parametrize("groups", [False, True])
def test_an_overtaken_update_is_validated_as_if_it_had_arrived_later(tmp_path: Path, groups: bool) -> None:
    def metrics(*, overtaken: bool) -> Any:
        folder = tmp_path / str(overtaken)
        folder.mkdir()
        line = Line(folder)
        options: dict[str, Any] = {"folds": 5, "fold_seed": 2, "groups": "b" if groups else None}
        line.train(slice(40), **options)
        later = line.request(slice(80, 117), mode="update", **options)
        earlier = line.request(slice(40, 80), mode="update", **options)
        if overtaken:
            card = line.run(later, once_publishing(lambda: line.run(earlier)))
        else:
            line.run(earlier)
            card = line.run(later)
        folds = line.registry.folds("m", card.version)
        assert card.validation is not None
        assert card.validation.rows == 117
        return card.metrics, {number: fold.rows for number, fold in folds.items()}

    assert metrics(overtaken=True) == metrics(overtaken=False)


@EVERYWHERE
@pytest.mark.parametrize(
    "options", [{"mode": "update"}, {"mode": "forget"}, {"solver": FROM_CURRENT}], ids=["update", "forget", "start"]
)
def test_no_version_is_built_on_an_older_one_that_is_served_in_place_of_a_damaged_one(
    line: Line, options: dict[str, Any]
) -> None:
    line.train(slice(40))
    line.train(slice(40, 80), mode="update")
    path = line.place.folder / "m" / file_name(2)
    content = path.read_bytes()
    path.write_bytes(content[:-9])
    after = Line(line.place.folder.parent, line.place)
    assert after.registry.current("m").card.version == 1
    with pytest.raises(ModelFileInvalid, match=r"Version 2 of .* Restore the file of version 2, or promote another"):
        after.train(slice(80, 120), **options)
    assert after.registry.versions("m") == [1, 2]
    path.write_bytes(content)
    assert after.train(slice(80, 120), mode="update").parent == 2
    after.assert_current_is_the_fit_of(slice(120))


@EVERYWHERE
def test_an_update_that_is_not_promoted_keeps_the_parent_that_it_was_made_from(line: Line) -> None:
    line.train(slice(40))
    requested = line.request(slice(40, 80), mode="update", promote="never")
    card = line.run(requested, once_publishing(lambda: line.train(slice(80, 120))))
    assert (card.version, card.parent, card.rows) == (3, 1, 80)
    assert line.registry.current_number("m") == 2


@EVERYWHERE
def test_the_parent_of_a_replacement_is_the_version_that_it_replaced(line: Line) -> None:
    line.train(slice(40))
    card = line.run(line.request(slice(80)), once_publishing(lambda: line.train(slice(40, 80))))
    assert (card.version, card.parent) == (3, 2)
    assert line.registry.current_number("m") == 3


@EVERYWHERE
@pytest.mark.parametrize("overtaken", [False, True])
def test_a_comparison_is_with_the_version_that_is_current_at_the_publication(line: Line, overtaken: bool) -> None:
    bad = line.context.spool.new()
    with line.context.spool.open_new(bad) as file:
        write_matrix(file, X[:40], -10 * Y[:40])
    line.train(slice(40), upload=bad)
    constant = line.request(slice(40, 80), solver=Exact(l2=1e12), promote="if_better", unseen=True, folds=10)
    card = line.run(constant, once_publishing(lambda: line.train(slice(120)) if overtaken else None))
    assert (card.version, card.parent, card.beats_current) == ((3, 2, False) if overtaken else (2, 1, True))
    assert line.registry.current_number("m") == 2


def test_an_overtaken_job_can_be_cancelled_again(line: Line) -> None:
    line.train(slice(40))
    overtaken: list[int] = []

    def overtake() -> None:
        line.train(slice(80, 120), mode="update")
        overtaken.append(1)

    with pytest.raises(JobCancelled):
        line.run(line.request(slice(40, 80), mode="update"), once_publishing(overtake), lambda: bool(overtaken))
    assert line.registry.versions("m") == [1, 2]


def test_an_overtaken_job_reports_that_it_fits_again_and_keeps_its_time_limit(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    line.train(slice(40))
    phases: list[str] = []

    class Clock:
        def monotonic(self) -> float:
            return 1e6 if "publishing" in phases else 0.0

    def at(progress: Progress) -> None:
        phases.append(progress.phase)
        if phases.count("publishing") == 1 and progress.phase == "publishing":
            line.train(slice(80, 120), mode="update")

    monkeypatch.setattr("app.training.progress.time", Clock())
    with pytest.raises(TimeExceeded):
        line.run(line.request(slice(40, 80), mode="update"), at, seconds=60)
    assert phases[-2:] == ["publishing", "fitting"]
    assert line.registry.versions("m") == [1, 2]


def test_a_start_from_the_current_version_is_from_the_one_that_is_current_when_the_job_begins(line: Line) -> None:
    line.train(slice(40))
    first, second = (line.request(slice(80), solver=FROM_CURRENT) for _ in range(2))
    cards = [line.run(first), line.run(second)]
    for card, start in zip(cards, (1, 2), strict=True):
        assert isinstance(card.solver, GradientDescent)
        assert card.solver.start == Start(version=start)
        assert (card.parent, card.promoted, card.warnings) == (start, True, ())


@EVERYWHERE
def test_a_descent_whose_start_is_no_longer_current_is_published_and_not_promoted(line: Line) -> None:
    line.train(slice(40))
    line.train(slice(60), promote="never")
    requested = line.request(slice(80), solver=FROM_CURRENT)
    card = line.run(requested, once_publishing(lambda: line.registry.promote("m", 2)))
    assert isinstance(card.solver, GradientDescent)
    assert card.solver.start == Start(version=1)
    assert (card.version, card.parent, card.promoted) == (3, 1, False)
    assert card.warnings[0].startswith(
        "Not promoted: the descent started from version 1, and while it ran, version 2 became current."
    )
    assert line.registry.current_number("m") == 2
    assert line.registry.version("m", 3).card == card


def test_a_descent_that_is_never_promoted_does_not_check_its_start(line: Line) -> None:
    line.train(slice(40))
    line.train(slice(60), promote="never")
    requested = line.request(slice(80), solver=FROM_CURRENT, promote="never")
    card = line.run(requested, once_publishing(lambda: line.registry.promote("m", 2)))
    assert (card.parent, card.warnings) == (1, ())


def test_a_resumed_descent_keeps_the_version_that_it_started_from(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            self.now += 1
            return self.now

    monkeypatch.setattr("app.training.progress.time", Clock())
    monkeypatch.setattr("app.training.checkpoints.time", Clock())
    line.train(slice(40))
    line.train(slice(40, 60), promote="never")
    expected = line.run(line.request(slice(80), solver=FROM_CURRENT, promote="never"))
    requested = line.request(slice(80), solver=FROM_CURRENT)
    epochs: list[int] = []

    def interrupted() -> bool:
        return len(epochs) > 10

    with pytest.raises(JobCancelled):  # as a kill would end it: the checkpoint stays
        line.run(requested, lambda progress: epochs.append(progress.epoch or 0), interrupted)
    line.registry.promote("m", 2)
    line.registry.delete("m", 1)
    card = line.run(requested)
    assert isinstance(card.solver, GradientDescent)
    assert card.solver.start == Start(version=1)
    assert (card.parent, card.promoted) == (1, False)
    assert "started from version 1" in card.warnings[0]
    found, same = (line.registry.version("m", one.version).model.coef for one in (card, expected))
    assert found.tobytes() == same.tobytes()
    assert line.registry.current_number("m") == 2


def test_a_start_from_the_current_version_of_other_columns_is_refused_when_the_job_begins(line: Line) -> None:
    line.train(slice(40))
    for features, message in ((("b", "a"), "It has features: a, b"), (("a", "b"), "no current version")):
        with pytest.raises(InvalidInput, match=message) as refused:
            line.train(
                slice(40), solver=FROM_CURRENT, features=features, model="m" if features == ("b", "a") else "none"
            )
        assert [detail.pointer for detail in refused.value.details] == ["/solver/start"]


@EVERYWHERE
def test_a_rerun_finds_what_it_published_and_does_not_undo_a_rollback(line: Line) -> None:
    line.train(slice(40))
    requested = line.request(slice(40, 80), mode="update")
    assert line.run(requested).version == 2
    line.registry.promote("m", 1)
    assert line.run(requested).version == 2
    assert line.registry.current_number("m") == 1


def as_an_earlier_release_left_it(line: Line, request: TrainingRequest, parent: int) -> int:
    """Publish without promoting and without a marker, as in the release in which promotion was a step of its own."""
    card = line.run(replace(request, promote="never"))
    path = line.place.folder / "m" / file_name(card.version)
    old = replace(card, promoted=None, parent=parent)
    path.write_bytes(encode(old, line.registry.version("m", card.version).model))
    for marker in (path.parent / "uploads").iterdir():
        marker.unlink()
    (path.parent / "uploads").rmdir()
    return card.version


def test_a_version_that_an_earlier_release_published_and_did_not_promote_is_promoted_by_the_rerun(line: Line) -> None:
    line.train(slice(40))
    requested = line.request(slice(40, 80), mode="update")
    number = as_an_earlier_release_left_it(line, requested, parent=1)
    assert line.registry.current_number("m") == 1
    assert line.run(requested).version == number
    assert line.registry.current_number("m") == number
    assert line.registry.versions("m") == [1, 2]


def test_a_version_of_an_earlier_release_is_not_promoted_over_rows_that_it_lacks(line: Line) -> None:
    line.train(slice(40))
    requested = line.request(slice(40, 80), mode="update")
    as_an_earlier_release_left_it(line, requested, parent=1)
    line.train(slice(80, 120), mode="update")
    with pytest.raises(Conflict, match="Version 2 was published, but not promoted: it was made from version 1, and"):
        line.run(requested)
    assert line.registry.current_number("m") == 3


def test_a_promotion_that_the_disk_refuses_is_reported_with_the_version_and_not_made_later(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    line.train(slice(40))

    def refused(_: Path) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr("app.registry.folder.publication.make_current", refused)
        with pytest.raises(PromotionFailed, match="Read-only file system") as failed:
            line.train(slice(40, 80), mode="update")
    assert failed.value.version == 2
    line.train(slice(80, 120), mode="update")
    assert line.registry.current("m").card.parent == 1


@pytest.mark.parametrize("mode", ["update", "forget"])
def test_a_job_that_an_import_without_statistics_overtakes_names_it_and_changes_nothing(line: Line, mode: str) -> None:
    def take_over() -> None:
        content = b'{"features": ["a", "b"], "targets": ["y"], "coefficients": [1, 2], "intercept": 0}'
        version = to_version(JsonImport().read(content, {}), "m", Imported("json", "coefficients"))
        line.registry.publish(version.card, version.model, promote=True)

    line.train(slice(80))
    with pytest.raises(InvalidInput, match=r"The current version, 2, was imported without .* promote a version"):
        line.run(line.request(slice(20), mode=mode), once_publishing(take_over))
    assert (line.registry.versions("m"), line.registry.current_number("m")) == ([1, 2], 2)
