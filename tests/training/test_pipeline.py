import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from registries import EVERYWHERE, Place

from app.data.training_rows import write_matrix
from app.errors import Diverged, InvalidInput, Unavailable, VersionNotFound
from app.registry.model_card import ModelCard
from app.regression.solvers import Exact, GradientDescent, Solver, Start
from app.training.pipeline import TrainerContext, train
from app.training.progress import JobCancelled, Progress, ProgressReporter
from app.training.request import TrainingRequest
from app.training.uploads import UploadStore

YIELDS = Path(__file__).parents[2] / "models" / "crop-yield" / "yields.csv"
ROWS = np.loadtxt(YIELDS, delimiter=",", skiprows=1)
X, Y = ROWS[:, :3], ROWS[:, 3:]
ON_CPU = GradientDescent(device="cpu")


class Clock:
    """Replaces the module `time`. Each call advances it by a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def fast_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every state is kept, every epoch reported, and cancellation is checked at every step."""
    monkeypatch.setattr("app.training.progress.time", Clock())
    monkeypatch.setattr("app.training.checkpoints.time", Clock())


@dataclass
class Reports:
    """The progress that a training reports."""

    progress: list[Progress] = field(default_factory=list)
    sink: ProgressReporter | None = None

    @property
    def epochs(self) -> list[int]:
        return [report.epoch for report in self.progress if report.phase == "fitting" and report.epoch is not None]


def never() -> bool:
    return False


def progress_sink(reports: Reports | None = None, cancelled: Callable[[], bool] = never) -> ProgressReporter:
    made = ProgressReporter(lambda progress, _: (reports or Reports()).progress.append(progress), cancelled)
    if reports:
        reports.sink = made
    return made


@pytest.fixture
def context(tmp_path: Path, place: Place) -> TrainerContext:
    return TrainerContext(place.open(), UploadStore(tmp_path / "spool"), tmp_path / "checkpoints")


def request(
    context: TrainerContext, solver: Solver, content: bytes | None = None, model: str = "crop"
) -> TrainingRequest:
    """The notebook's rows as they are uploaded, or any other CSV with the same columns."""
    upload = context.spool.new()
    with context.spool.open_new(upload) as file:
        file.write(YIELDS.read_bytes() if content is None else content)
    return TrainingRequest(
        model=model,
        upload=upload,
        format="csv",
        features=("temp", "rainfall", "humidity"),
        targets=("apples", "oranges"),
        solver=solver,
        promote="never",
        fingerprint="",
    )


def weights_of(context: TrainerContext, card: ModelCard) -> list[bytes]:
    model = context.registry.version(card.model, card.version).model
    return [model.coef.tobytes(), model.intercept.tobytes()]


def published(context: TrainerContext, model: str = "crop") -> list[int]:
    return context.registry.versions(model)


@EVERYWHERE
def test_the_exact_solver_publishes_the_optimum_of_the_notebook(context: TrainerContext) -> None:
    card = train(request(context, Exact()), "job", context, progress_sink())
    found = context.registry.version("crop", 1)
    assert found.card == card
    assert found.model.predict(np.array([[75.0, 63.0, 44.0]]))[0].tolist() == pytest.approx([53.80, 66.81], abs=5e-3)
    assert card.metrics["mse"] == pytest.approx(0.9094, abs=5e-5)
    residuals = Y - found.model.predict(X)
    for index, target in enumerate(("apples", "oranges")):
        metrics = card.metrics[target]
        assert isinstance(metrics, dict)
        assert metrics["rmse"] == pytest.approx(np.sqrt((residuals[:, index] ** 2).mean()))
        assert metrics["r2"] == pytest.approx(1 - (residuals[:, index] ** 2).mean() / Y[:, index].var())


def test_the_card_of_an_exact_model_is_complete(context: TrainerContext) -> None:
    before = datetime.now(UTC)
    card = train(request(context, Exact(l2=0.25)), "job", context, progress_sink())
    assert (card.model, card.version, card.job, card.parent) == ("crop", 1, "job", None)
    assert (card.features, card.targets) == (("temp", "rainfall", "humidity"), ("apples", "oranges"))
    assert card.solver == Exact(l2=0.25)
    assert (card.rows, card.rank) == (15, 4)
    units = (X - X.mean(axis=0)) / X.std(axis=0)
    assert card.condition_number == pytest.approx(np.linalg.cond(units))
    assert card.inference_unavailable is not None
    assert "ridge" in card.inference_unavailable
    assert card.warnings == ()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", card.created_at)
    assert abs(datetime.fromisoformat(card.created_at) - before).total_seconds() < 3600
    assert {"python", "linserve-server", "numpy", "torch"} <= set(card.libraries)


def test_an_unpenalised_exact_model_has_valid_intervals(context: TrainerContext) -> None:
    card = train(request(context, Exact()), "job", context, progress_sink())
    assert card.inference_unavailable is None
    assert context.registry.version("crop", 1).model.inference_unavailable is None


def test_gradient_descent_publishes_its_end_and_the_error_of_the_optimum(context: TrainerContext) -> None:
    solver = replace(ON_CPU, epochs=100, learning_rate=1e-5, batch_size=5)
    card = train(request(context, solver), "job", context, progress_sink())
    model = context.registry.version("crop", 1).model
    assert model.predict(np.array([[75.0, 63.0, 44.0]]))[0].tolist() == pytest.approx([55, 69], abs=5)
    assert card.solver == solver
    assert card.metrics["mse"] == pytest.approx(float(((Y - model.predict(X)) ** 2).mean()), rel=1e-9)
    assert card.metrics["optimum_mse"] == pytest.approx(0.9094, abs=5e-5)
    assert card.inference_unavailable is not None
    assert "gradient descent" in card.inference_unavailable
    assert (card.rows, card.rank) == (15, 4)


def test_a_descent_that_reached_the_optimum_has_intervals(context: TrainerContext) -> None:
    exact = train(request(context, Exact()), "exact", context, progress_sink())
    solver = replace(ON_CPU, epochs=2000, learning_rate=0.5, standardize=True)
    near = train(request(context, solver), "near", context, progress_sink())
    far = train(request(context, replace(solver, epochs=20)), "far", context, progress_sink())
    assert near.inference_unavailable is None
    assert far.inference_unavailable is not None
    expected, found = (context.registry.version("crop", card.version).model for card in (exact, near))
    assert_allclose(found.interval(X, 0.95), expected.interval(X, 0.95), rtol=1e-6)


def test_a_training_reproduces_the_reference_losses_of_the_notebook(context: TrainerContext, fast_clock: None) -> None:
    start = Start(weights=[[0.9887, -0.6828, -0.3289], [-0.0954, -0.1854, -0.6360]], intercept=[1.0996, 0.1550])
    solver = replace(ON_CPU, epochs=202, learning_rate=1e-5, start=start)
    reports = Reports()
    five = b"".join(YIELDS.read_bytes().splitlines(keepends=True)[:6])
    train(request(context, solver, five), "job", context, progress_sink(reports))
    assert reports.sink is not None
    losses = dict(reports.sink.curve.with_last())
    assert sorted(losses) == list(range(203))
    found = [losses[epoch] for epoch in (0, 1, 2, 102, 202)]
    assert found == pytest.approx([16740.3, 11840.2, 8531.4, 530.45, 184.35], rel=1e-4)


@pytest.mark.parametrize("solver", [Exact(), replace(ON_CPU, epochs=5, batch_size=4)])
def test_rows_stored_as_numbers_train_the_same_model_as_rows_in_csv(context: TrainerContext, solver: Solver) -> None:
    in_csv = request(context, solver)
    upload = context.spool.new()
    with context.spool.open_new(upload) as file:
        write_matrix(file, X, Y)
    as_numbers = replace(in_csv, upload=upload, format="matrix")
    one = train(in_csv, "a", context, progress_sink())
    other = train(as_numbers, "b", context, progress_sink())
    assert weights_of(context, one) == weights_of(context, other)


@pytest.mark.parametrize("solver", [Exact(), replace(ON_CPU, epochs=5)])
def test_a_job_that_runs_again_publishes_no_second_version(context: TrainerContext, solver: Solver) -> None:
    first = request(context, solver)
    card = train(first, "job", context, progress_sink())
    context.spool.remove(first.upload)  # the second time there are no rows to read any more
    assert train(first, "job", context, progress_sink()) == card
    assert published(context) == [1]
    other = train(request(context, solver), "another job", context, progress_sink())
    assert (other.version, other.job) == (2, "another job")


@EVERYWHERE
def test_a_request_publishes_once_under_any_job(context: TrainerContext) -> None:
    requested = request(context, Exact())
    assert [train(requested, job, context, progress_sink()).version for job in (None, "a", None)] == [1, 1, 1]
    assert context.registry.version("crop", 1).card.job is None


@EVERYWHERE
def test_a_training_without_promotion_names_the_current_version_as_its_parent(context: TrainerContext) -> None:
    assert train(request(context, Exact()), "a", context, progress_sink()).parent is None
    assert context.registry.current_number("crop") is None
    assert train(request(context, Exact()), "b", context, progress_sink()).parent is None
    context.registry.promote("crop", 2)
    assert train(request(context, Exact()), "c", context, progress_sink()).parent == 2
    assert context.registry.current_number("crop") == 2


def test_progress_names_the_phases_of_a_training_in_turn(context: TrainerContext, fast_clock: None) -> None:
    reports = Reports()
    solver = replace(ON_CPU, epochs=3)
    train(request(context, solver), "job", context, progress_sink(reports))
    phases = [progress.phase for progress in reports.progress]
    assert phases == ["reading"] * 2 + ["fitting"] * 6 + ["diagnosing"] * 2 + ["publishing"]
    assert [progress.rows for progress in reports.progress[1:]] == [15] * 7 + [0, 15, 15]
    assert reports.epochs == [0, 1, 2, 3]
    assert {progress.epochs for progress in reports.progress[2:]} == {3}
    assert reports.progress[-1].loss == reports.progress[-2].loss is not None


def test_every_block_of_a_long_upload_is_counted(context: TrainerContext, fast_clock: None) -> None:
    rows = np.arange(300_000.0)[:, np.newaxis]
    upload = context.spool.new()
    with context.spool.open_new(upload) as file:
        write_matrix(file, rows, 2 * rows + 1)
    requested = replace(
        request(context, Exact()), upload=upload, format="matrix", features=("x",), targets=("y",), model="line"
    )
    reports = Reports()
    card = train(requested, "job", context, progress_sink(reports))
    read = [progress.rows for progress in reports.progress if progress.phase == "reading"]
    assert read == [131_072, 262_144, 300_000]
    assert card.rows == 300_000
    model = context.registry.version("line", 1).model
    assert_allclose([model.coef[0, 0], model.intercept[0]], [2, 1], rtol=1e-9)


@pytest.mark.parametrize("solver", [Exact(), replace(ON_CPU, epochs=1000)])
def test_a_cancelled_training_raises_and_publishes_nothing(
    context: TrainerContext, solver: Solver, fast_clock: None
) -> None:
    with pytest.raises(JobCancelled):
        train(request(context, solver), "job", context, progress_sink(cancelled=lambda: True))
    assert context.registry.find("crop", "job") is None
    assert not (context.registry.models())


def test_a_descent_is_cancelled_in_the_middle_of_an_epoch(context: TrainerContext, fast_clock: None) -> None:
    reports = Reports()
    requested = [0]

    def after_a_while() -> bool:
        requested[0] += 1
        return requested[0] > 40

    solver = replace(ON_CPU, epochs=1000, batch_size=1)
    with pytest.raises(JobCancelled):
        train(request(context, solver), "job", context, progress_sink(reports, after_a_while))
    assert requested == [41]
    assert reports.epochs[-1] == 2  # 15 steps and a report an epoch


@pytest.mark.parametrize(
    "solver",
    [
        replace(ON_CPU, epochs=60),
        replace(ON_CPU, epochs=60, batch_size=4, seed=3),
        replace(ON_CPU, epochs=60, batch_size=4, standardize=True, learning_rate=0.03),
        replace(ON_CPU, epochs=60, batch_size=4, patience=20),
    ],
    ids=["full batch", "batches", "standardised", "patience"],
)
def test_a_training_resumed_from_its_checkpoint_ends_with_the_same_bits_as_an_uninterrupted_one(
    context: TrainerContext, solver: GradientDescent, fast_clock: None
) -> None:
    whole, part, rest = Reports(), Reports(), Reports()
    expected = train(request(context, solver, model="whole"), "whole", context, progress_sink(whole))

    requested = request(context, solver)
    with pytest.raises(JobCancelled):  # as a kill would end it: the checkpoint stays
        train(requested, "job", context, progress_sink(part, lambda: len(part.epochs) > 20))
    found = train(requested, "job", context, progress_sink(rest))

    assert rest.epochs[0] == part.epochs[-1] > 0, "the training began anew"
    assert part.epochs + rest.epochs[1:] == whole.epochs
    assert weights_of(context, found) == weights_of(context, expected)
    assert found.metrics == expected.metrics
    assert whole.sink is not None
    assert rest.sink is not None
    assert rest.sink.curve.with_last() == whole.sink.curve.with_last()


def test_the_checkpoint_of_another_job_is_not_used(context: TrainerContext, fast_clock: None) -> None:
    solver = replace(ON_CPU, epochs=20)
    part, other = Reports(), Reports()
    with pytest.raises(JobCancelled):
        train(request(context, solver), "job", context, progress_sink(part, lambda: len(part.epochs) > 10))
    train(request(context, solver), "another job", context, progress_sink(other))
    assert other.epochs == list(range(21))


def test_a_job_with_an_unreadable_checkpoint_starts_again(context: TrainerContext, fast_clock: None) -> None:
    solver = replace(ON_CPU, epochs=20)
    expected = train(request(context, solver), "whole", context, progress_sink())
    (context.checkpoints / "job.json").write_bytes(b'{"state": {')
    reports = Reports()
    found = train(request(context, solver), "job", context, progress_sink(reports))
    assert reports.epochs == list(range(21))
    assert weights_of(context, found) == weights_of(context, expected)


@EVERYWHERE
def test_a_descent_can_start_from_the_weights_of_a_version(context: TrainerContext, fast_clock: None) -> None:
    solver = replace(ON_CPU, epochs=40)
    expected = train(request(context, solver, model="whole"), "whole", context, progress_sink())
    half = train(request(context, replace(solver, epochs=20)), "half", context, progress_sink())
    onward = replace(solver, epochs=20, start=Start(version=half.version))
    reports = Reports()
    found = train(request(context, onward), "rest", context, progress_sink(reports))
    assert weights_of(context, found) == weights_of(context, expected)
    assert next(progress.loss for progress in reports.progress if progress.epoch == 0) == pytest.approx(
        half.metrics["mse"]
    )
    # The card repeats the options of the request, without the weights of the version.
    assert found.solver == onward


def test_a_start_from_a_version_with_other_columns_is_refused(context: TrainerContext) -> None:
    train(request(context, Exact()), "exact", context, progress_sink())
    onward = replace(ON_CPU, start=Start(version=1))
    requested = replace(request(context, onward), features=("rainfall", "temp", "humidity"))
    with pytest.raises(InvalidInput) as refused:
        train(requested, "job", context, progress_sink())
    assert [detail.pointer for detail in refused.value.details] == ["/solver/start/version"]


def test_a_start_from_a_missing_version_is_refused(context: TrainerContext) -> None:
    train(request(context, Exact()), "exact", context, progress_sink())
    with pytest.raises(VersionNotFound):
        train(request(context, replace(ON_CPU, start=Start(version=9))), "job", context, progress_sink())


def test_a_learning_rate_of_one_diverges_and_publishes_nothing(context: TrainerContext) -> None:
    solver = replace(ON_CPU, learning_rate=1.0)
    with pytest.raises(Diverged, match=r"do not diverge with a learning rate below \d"):
        train(request(context, solver), "job", context, progress_sink())
    assert context.registry.find("crop", "job") is None


def test_the_warnings_of_a_descent_are_in_the_card(context: TrainerContext) -> None:
    start = Start(weights=[[0.7, 0.0, 0.0], [0.0, 0.7, 0.0]], intercept=[0.0, 0.0])
    solver = replace(ON_CPU, start=start, learning_rate=1.119e-4, epochs=2, validation_fraction=0.01)
    card = train(request(context, solver), "job", context, progress_sink())
    unheld, above = card.warnings
    assert unheld == "validation_fraction=0.01 of 15 rows holds out no row; all rows are trained on."
    assert re.match(r"The learning rate of 0\.0001119 is above 0\.0001115, the bound below which full batches", above)


def test_the_loss_curve_has_the_penalty_of_weight_decay_and_the_metrics_do_not(context: TrainerContext) -> None:
    solver = replace(ON_CPU, weight_decay=0.5, epochs=200)
    reports = Reports()
    card = train(request(context, solver), "job", context, progress_sink(reports))
    model = context.registry.version("crop", card.version).model
    error = Y - X @ model.coef.T - model.intercept
    assert card.metrics["mse"] == pytest.approx((error**2).mean(), rel=1e-9)
    penalty = 0.25 * ((model.coef**2).sum() + (model.intercept**2).sum())
    assert reports.progress[-1].loss == pytest.approx((error**2).mean() + penalty, rel=1e-9)


@pytest.mark.parametrize("solver", [Exact(), ON_CPU])
def test_no_rows_are_refused_and_publish_nothing(context: TrainerContext, solver: Solver) -> None:
    header = YIELDS.read_bytes().splitlines(keepends=True)[0]
    with pytest.raises(InvalidInput, match="no rows"):
        train(request(context, solver, header), "job", context, progress_sink())
    assert context.registry.find("crop", "job") is None


@pytest.mark.parametrize("solver", [Exact(), ON_CPU])
def test_a_fault_in_the_rows_is_reported_with_its_place(context: TrainerContext, solver: Solver) -> None:
    with pytest.raises(InvalidInput) as refused:
        train(request(context, solver, YIELDS.read_bytes() + b"1,2,x,4,5\n"), "job", context, progress_sink())
    assert [(detail.row, detail.column) for detail in refused.value.details] == [(17, "humidity")]


def test_constant_and_collinear_features_lead_to_warnings_and_withheld_intervals(context: TrainerContext) -> None:
    lines = ["temp,rainfall,humidity,apples,oranges", *(f"{i},{2 * i},7,{3 * i},{i + 1}" for i in range(6))]
    card = train(request(context, Exact(), "\n".join(lines).encode()), "job", context, progress_sink())
    assert card.rank == 2
    assert len(card.warnings) == 4
    assert card.warnings[0].startswith("Columns that only count the rows")
    assert card.warnings[1] == 'The feature "humidity" is constant in these rows; its coefficient is 0.'
    assert card.warnings[2].startswith("The rows determine only 2 of 4 coefficients")
    assert card.inference_unavailable is not None
    model = context.registry.version("crop", 1).model
    assert_array_equal(model.coef[:, 2], [0, 0])
    assert_allclose(model.predict(np.array([[2.0, 4.0, 7.0]])), [[6, 3]])


def test_a_warning_of_a_descent_claims_no_property_of_the_exact_solver(context: TrainerContext) -> None:
    lines = ["temp,rainfall,humidity,apples,oranges", *(f"{i},{2 * i},7,{3 * i},{i + 1}" for i in range(6))]
    solver = replace(ON_CPU, epochs=2, learning_rate=1e-3)
    card = train(request(context, solver, "\n".join(lines).encode()), "job", context, progress_sink())
    model = context.registry.version("crop", 1).model
    assert model.coef[0, 2] != 0
    assert card.warnings
    for warning in card.warnings:
        assert "its coefficient is 0" not in warning
        assert "smallest" not in warning


def test_a_target_that_does_not_vary_has_no_r2(context: TrainerContext) -> None:
    lines = ["temp,rainfall,humidity,apples,oranges", *(f"{i},{i * i},{i**3},5,{i}" for i in range(8))]
    card = train(request(context, Exact(), "\n".join(lines).encode()), "job", context, progress_sink())
    apples, oranges = card.metrics["apples"], card.metrics["oranges"]
    assert isinstance(apples, dict)
    assert isinstance(oranges, dict)
    assert apples["r2"] is None
    assert oranges["r2"] == pytest.approx(1)


def test_without_an_intercept_the_rank_counts_the_features_alone(context: TrainerContext) -> None:
    card = train(request(context, Exact(fit_intercept=False)), "job", context, progress_sink())
    assert card.rank == 3
    assert card.warnings == ()
    assert_array_equal(context.registry.version("crop", 1).model.intercept, [0, 0])


def test_a_training_whose_rows_are_in_another_state_folder_is_unavailable(context: TrainerContext) -> None:
    requested = request(context, Exact())
    context.spool.remove(requested.upload)
    with pytest.raises(Unavailable, match="not in the state folder"):
        train(requested, "job", context, progress_sink())
