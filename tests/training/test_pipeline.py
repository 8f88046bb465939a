import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from app.data.training_rows import write_matrix
from app.errors import Diverged, InvalidInput, Unavailable, VersionNotFound
from app.jobs.job import Progress
from app.jobs.progress import JobCancelled, ProgressReporter
from app.jobs.uploads import UploadStore
from app.registry.model_card import ModelCard
from app.registry.publisher import ModelPublisher
from app.regression.solvers import Exact, GradientDescent, Solver, Start
from app.training.pipeline import TrainerContext, train
from app.training.request import TrainingRequest

YIELDS = Path(__file__).parents[2] / "models" / "crop-yield" / "yields.csv"
ROWS = np.loadtxt(YIELDS, delimiter=",", skiprows=1)
X, Y = ROWS[:, :3], ROWS[:, 3:]
ON_CPU = GradientDescent(device="cpu")


class Clock:
    """Stands in for the module `time`: every look at it finds another second gone."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def seconds_fly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every state is kept, every epoch reported, and cancellation asked for at every step."""
    monkeypatch.setattr("app.jobs.progress.time", Clock())
    monkeypatch.setattr("app.training.checkpoints.time", Clock())


@dataclass
class Told:
    """What a training told of itself."""

    progress: list[Progress] = field(default_factory=list)
    tracker: ProgressReporter | None = None

    @property
    def epochs(self) -> list[int]:
        return [told.epoch for told in self.progress if told.phase == "fitting" and told.epoch is not None]


def never() -> bool:
    return False


def tracker(told: Told | None = None, cancelled: Callable[[], bool] = never) -> ProgressReporter:
    made = ProgressReporter(lambda progress, _: (told or Told()).progress.append(progress), cancelled)
    if told:
        told.tracker = made
    return made


@pytest.fixture
def workshop(tmp_path: Path) -> TrainerContext:
    models = tmp_path / "models"
    models.mkdir()
    return TrainerContext(ModelPublisher(models), UploadStore(tmp_path / "spool"), tmp_path / "checkpoints")


def request(
    workshop: TrainerContext, solver: Solver, content: bytes | None = None, model: str = "crop"
) -> TrainingRequest:
    """The notebook's rows as they are uploaded, or any other CSV with the same columns."""
    upload = workshop.spool.new()
    with workshop.spool.open_new(upload) as file:
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


def weights_of(workshop: TrainerContext, card: ModelCard) -> list[bytes]:
    model = workshop.registry.version(card.model, card.version).model
    return [model.coef.tobytes(), model.intercept.tobytes()]


def published(workshop: TrainerContext, model: str = "crop") -> list[int]:
    folder = workshop.registry.path(model, 1).parent
    return sorted(int(path.stem) for path in folder.glob("*.safetensors"))


def test_the_exact_solver_publishes_the_optimum_of_the_notebook(workshop: TrainerContext) -> None:
    card = train(request(workshop, Exact()), "job", workshop, tracker())
    found = workshop.registry.version("crop", 1)
    assert found.card == card
    assert found.model.predict(np.array([[75.0, 63.0, 44.0]]))[0].tolist() == pytest.approx([53.80, 66.81], abs=5e-3)
    assert card.metrics["mse"] == pytest.approx(0.9094, abs=5e-5)
    residuals = Y - found.model.predict(X)
    for index, target in enumerate(("apples", "oranges")):
        metrics = card.metrics[target]
        assert isinstance(metrics, dict)
        assert metrics["rmse"] == pytest.approx(np.sqrt((residuals[:, index] ** 2).mean()))
        assert metrics["r2"] == pytest.approx(1 - (residuals[:, index] ** 2).mean() / Y[:, index].var())


def test_the_card_of_an_exact_model_says_all_that_is_known_of_it(workshop: TrainerContext) -> None:
    before = datetime.now(UTC)
    card = train(request(workshop, Exact(l2=0.25)), "job", workshop, tracker())
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


def test_the_intervals_of_an_unpenalised_exact_model_hold(workshop: TrainerContext) -> None:
    card = train(request(workshop, Exact()), "job", workshop, tracker())
    assert card.inference_unavailable is None
    assert workshop.registry.version("crop", 1).model.inference_unavailable is None


def test_gradient_descent_publishes_where_it_ended_and_how_far_from_the_optimum(workshop: TrainerContext) -> None:
    solver = replace(ON_CPU, epochs=100, learning_rate=1e-5, batch_size=5)
    card = train(request(workshop, solver), "job", workshop, tracker())
    model = workshop.registry.version("crop", 1).model
    assert model.predict(np.array([[75.0, 63.0, 44.0]]))[0].tolist() == pytest.approx([55, 69], abs=5)
    assert card.solver == solver
    assert card.metrics["mse"] == pytest.approx(float(((Y - model.predict(X)) ** 2).mean()), rel=1e-9)
    assert card.metrics["optimum_mse"] == pytest.approx(0.9094, abs=5e-5)
    assert card.inference_unavailable is not None
    assert "gradient descent" in card.inference_unavailable
    assert (card.rows, card.rank) == (15, 4)


def test_a_descent_that_came_to_the_optimum_has_its_intervals(workshop: TrainerContext) -> None:
    exact = train(request(workshop, Exact()), "exact", workshop, tracker())
    solver = replace(ON_CPU, epochs=2000, learning_rate=0.5, standardize=True)
    near = train(request(workshop, solver), "near", workshop, tracker())
    far = train(request(workshop, replace(solver, epochs=20)), "far", workshop, tracker())
    assert near.inference_unavailable is None
    assert far.inference_unavailable is not None
    expected, found = (workshop.registry.version("crop", card.version).model for card in (exact, near))
    assert_allclose(found.interval(X, 0.95), expected.interval(X, 0.95), rtol=1e-6)


def test_the_reference_losses_of_the_notebook_come_out_of_a_training(
    workshop: TrainerContext, seconds_fly: None
) -> None:
    start = Start(weights=[[0.9887, -0.6828, -0.3289], [-0.0954, -0.1854, -0.6360]], intercept=[1.0996, 0.1550])
    solver = replace(ON_CPU, epochs=202, learning_rate=1e-5, start=start)
    told = Told()
    five = b"".join(YIELDS.read_bytes().splitlines(keepends=True)[:6])
    train(request(workshop, solver, five), "job", workshop, tracker(told))
    assert told.tracker is not None
    losses = dict(told.tracker.curve.with_last())
    assert sorted(losses) == list(range(203))
    found = [losses[epoch] for epoch in (0, 1, 2, 102, 202)]
    assert found == pytest.approx([16740.3, 11840.2, 8531.4, 530.45, 184.35], rel=1e-4)


@pytest.mark.parametrize("solver", [Exact(), replace(ON_CPU, epochs=5, batch_size=4)])
def test_rows_stored_as_numbers_train_the_same_model_as_rows_in_csv(workshop: TrainerContext, solver: Solver) -> None:
    in_csv = request(workshop, solver)
    upload = workshop.spool.new()
    with workshop.spool.open_new(upload) as file:
        write_matrix(file, X, Y)
    as_numbers = replace(in_csv, upload=upload, format="matrix")
    one = train(in_csv, "a", workshop, tracker())
    other = train(as_numbers, "b", workshop, tracker())
    assert weights_of(workshop, one) == weights_of(workshop, other)


@pytest.mark.parametrize("solver", [Exact(), replace(ON_CPU, epochs=5)])
def test_a_job_publishes_one_version_however_often_it_runs(workshop: TrainerContext, solver: Solver) -> None:
    first = request(workshop, solver)
    card = train(first, "job", workshop, tracker())
    workshop.spool.remove(first.upload)  # the second time there are no rows to read any more
    assert train(first, "job", workshop, tracker()) == card
    assert published(workshop) == [1]
    other = train(request(workshop, solver), "another job", workshop, tracker())
    assert (other.version, other.job) == (2, "another job")


def test_a_request_publishes_once_whoever_runs_it(workshop: TrainerContext) -> None:
    asked = request(workshop, Exact())
    assert [train(asked, job, workshop, tracker()).version for job in (None, "a", None)] == [1, 1, 1]
    assert workshop.registry.version("crop", 1).card.job is None


def test_training_promotes_nothing_and_names_the_promoted_version_as_the_parent(workshop: TrainerContext) -> None:
    assert train(request(workshop, Exact()), "a", workshop, tracker()).parent is None
    assert workshop.registry.current_number("crop") is None
    assert train(request(workshop, Exact()), "b", workshop, tracker()).parent is None
    workshop.registry.promote("crop", 2)
    assert train(request(workshop, Exact()), "c", workshop, tracker()).parent == 2
    assert workshop.registry.current_number("crop") == 2


def test_progress_goes_from_reading_to_fitting_to_publishing(workshop: TrainerContext, seconds_fly: None) -> None:
    told = Told()
    solver = replace(ON_CPU, epochs=3)
    train(request(workshop, solver), "job", workshop, tracker(told))
    phases = [progress.phase for progress in told.progress]
    assert phases == ["reading", "fitting", "fitting", "fitting", "fitting", "fitting", "publishing"]
    assert {progress.rows for progress in told.progress} == {15}
    assert told.epochs == [0, 1, 2, 3]
    assert {progress.epochs for progress in told.progress[1:]} == {3}
    assert told.progress[-1].loss == told.progress[-2].loss is not None


def test_every_block_of_a_long_upload_is_counted(workshop: TrainerContext, seconds_fly: None) -> None:
    rows = np.arange(300_000.0)[:, np.newaxis]
    upload = workshop.spool.new()
    with workshop.spool.open_new(upload) as file:
        write_matrix(file, rows, 2 * rows + 1)
    asked = replace(
        request(workshop, Exact()), upload=upload, format="matrix", features=("x",), targets=("y",), model="line"
    )
    told = Told()
    card = train(asked, "job", workshop, tracker(told))
    read = [progress.rows for progress in told.progress if progress.phase == "reading"]
    assert read == [131_072, 262_144, 300_000]
    assert card.rows == 300_000
    model = workshop.registry.version("line", 1).model
    assert_allclose([model.coef[0, 0], model.intercept[0]], [2, 1], rtol=1e-9)


@pytest.mark.parametrize("solver", [Exact(), replace(ON_CPU, epochs=1000)])
def test_a_cancelled_training_raises_and_publishes_nothing(
    workshop: TrainerContext, solver: Solver, seconds_fly: None
) -> None:
    with pytest.raises(JobCancelled):
        train(request(workshop, solver), "job", workshop, tracker(cancelled=lambda: True))
    assert workshop.registry.find("crop", "job") is None
    assert not (workshop.registry.models())


def test_a_descent_is_cancelled_in_the_middle_of_an_epoch(workshop: TrainerContext, seconds_fly: None) -> None:
    told = Told()
    asked = [0]

    def after_a_while() -> bool:
        asked[0] += 1
        return asked[0] > 40

    solver = replace(ON_CPU, epochs=1000, batch_size=1)
    with pytest.raises(JobCancelled):
        train(request(workshop, solver), "job", workshop, tracker(told, after_a_while))
    assert asked == [41]
    assert told.epochs[-1] == 2  # 15 steps and a report an epoch


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
def test_a_training_resumed_from_its_checkpoint_ends_in_the_very_bits_of_an_uninterrupted_one(
    workshop: TrainerContext, solver: GradientDescent, seconds_fly: None
) -> None:
    whole, part, rest = Told(), Told(), Told()
    expected = train(request(workshop, solver, model="whole"), "whole", workshop, tracker(whole))

    asked = request(workshop, solver)
    with pytest.raises(JobCancelled):  # as a kill would end it: the checkpoint stays
        train(asked, "job", workshop, tracker(part, lambda: len(part.epochs) > 20))
    found = train(asked, "job", workshop, tracker(rest))

    assert rest.epochs[0] == part.epochs[-1] > 0, "the training began anew"
    assert part.epochs + rest.epochs[1:] == whole.epochs
    assert weights_of(workshop, found) == weights_of(workshop, expected)
    assert found.metrics == expected.metrics
    assert whole.tracker is not None
    assert rest.tracker is not None
    assert rest.tracker.curve.with_last() == whole.tracker.curve.with_last()


def test_the_checkpoint_of_another_job_is_left_alone(workshop: TrainerContext, seconds_fly: None) -> None:
    solver = replace(ON_CPU, epochs=20)
    part, other = Told(), Told()
    with pytest.raises(JobCancelled):
        train(request(workshop, solver), "job", workshop, tracker(part, lambda: len(part.epochs) > 10))
    train(request(workshop, solver), "another job", workshop, tracker(other))
    assert other.epochs == list(range(21))


def test_an_unreadable_checkpoint_means_to_start_anew(workshop: TrainerContext, seconds_fly: None) -> None:
    solver = replace(ON_CPU, epochs=20)
    expected = train(request(workshop, solver), "whole", workshop, tracker())
    (workshop.checkpoints / "job.json").write_bytes(b'{"state": {')
    told = Told()
    found = train(request(workshop, solver), "job", workshop, tracker(told))
    assert told.epochs == list(range(21))
    assert weights_of(workshop, found) == weights_of(workshop, expected)


def test_a_descent_goes_on_from_the_weights_of_a_version(workshop: TrainerContext, seconds_fly: None) -> None:
    solver = replace(ON_CPU, epochs=40)
    expected = train(request(workshop, solver, model="whole"), "whole", workshop, tracker())
    half = train(request(workshop, replace(solver, epochs=20)), "half", workshop, tracker())
    onward = replace(solver, epochs=20, start=Start(version=half.version))
    told = Told()
    found = train(request(workshop, onward), "rest", workshop, tracker(told))
    assert weights_of(workshop, found) == weights_of(workshop, expected)
    assert told.progress[2].loss == half.metrics["mse"] or told.progress[2].loss == pytest.approx(half.metrics["mse"])
    # The card repeats what was asked for, not the weights it came to.
    assert found.solver == onward


def test_a_start_from_a_version_with_other_columns_is_refused(workshop: TrainerContext) -> None:
    train(request(workshop, Exact()), "exact", workshop, tracker())
    onward = replace(ON_CPU, start=Start(version=1))
    asked = replace(request(workshop, onward), features=("rainfall", "temp", "humidity"))
    with pytest.raises(InvalidInput) as refused:
        train(asked, "job", workshop, tracker())
    assert [detail.pointer for detail in refused.value.details] == ["/solver/start/version"]


def test_a_start_from_a_version_there_is_not_is_refused(workshop: TrainerContext) -> None:
    train(request(workshop, Exact()), "exact", workshop, tracker())
    with pytest.raises(VersionNotFound):
        train(request(workshop, replace(ON_CPU, start=Start(version=9))), "job", workshop, tracker())


def test_a_learning_rate_of_one_diverges_and_publishes_nothing(workshop: TrainerContext) -> None:
    solver = replace(ON_CPU, learning_rate=1.0)
    with pytest.raises(Diverged, match=r"do not diverge with a learning rate below \d"):
        train(request(workshop, solver), "job", workshop, tracker())
    assert workshop.registry.find("crop", "job") is None


def test_what_a_descent_warns_of_is_in_the_card(workshop: TrainerContext) -> None:
    start = Start(weights=[[0.7, 0.0, 0.0], [0.0, 0.7, 0.0]], intercept=[0.0, 0.0])
    solver = replace(ON_CPU, start=start, learning_rate=1.119e-4, epochs=2, validation_fraction=0.01)
    card = train(request(workshop, solver), "job", workshop, tracker())
    unheld, above = card.warnings
    assert unheld == "validation_fraction=0.01 of 15 rows holds out no row; all rows are trained on."
    assert re.match(r"The learning rate of 0\.0001119 is above 0\.0001115, the bound below which full batches", above)


def test_the_loss_curve_has_the_penalty_of_weight_decay_and_the_metrics_do_not(workshop: TrainerContext) -> None:
    solver = replace(ON_CPU, weight_decay=0.5, epochs=200)
    told = Told()
    card = train(request(workshop, solver), "job", workshop, tracker(told))
    model = workshop.registry.version("crop", card.version).model
    error = Y - X @ model.coef.T - model.intercept
    assert card.metrics["mse"] == pytest.approx((error**2).mean(), rel=1e-9)
    penalty = 0.25 * ((model.coef**2).sum() + (model.intercept**2).sum())
    assert told.progress[-1].loss == pytest.approx((error**2).mean() + penalty, rel=1e-9)


@pytest.mark.parametrize("solver", [Exact(), ON_CPU])
def test_no_rows_are_refused_and_publish_nothing(workshop: TrainerContext, solver: Solver) -> None:
    header = YIELDS.read_bytes().splitlines(keepends=True)[0]
    with pytest.raises(InvalidInput, match="no rows"):
        train(request(workshop, solver, header), "job", workshop, tracker())
    assert workshop.registry.find("crop", "job") is None


@pytest.mark.parametrize("solver", [Exact(), ON_CPU])
def test_a_fault_in_the_rows_is_told_with_its_place(workshop: TrainerContext, solver: Solver) -> None:
    with pytest.raises(InvalidInput) as refused:
        train(request(workshop, solver, YIELDS.read_bytes() + b"1,2,x,4,5\n"), "job", workshop, tracker())
    assert [(detail.row, detail.column) for detail in refused.value.details] == [(17, "humidity")]


def test_constant_and_collinear_features_are_warned_of_and_intervals_withheld(workshop: TrainerContext) -> None:
    lines = ["temp,rainfall,humidity,apples,oranges", *(f"{i},{2 * i},7,{3 * i},{i + 1}" for i in range(6))]
    card = train(request(workshop, Exact(), "\n".join(lines).encode()), "job", workshop, tracker())
    assert card.rank == 2
    assert len(card.warnings) == 3
    assert card.warnings[0] == 'The feature "humidity" is constant in these rows; its coefficient is 0.'
    assert card.warnings[1].startswith("The rows determine only 2 of 4 coefficients")
    assert card.inference_unavailable is not None
    model = workshop.registry.version("crop", 1).model
    assert_array_equal(model.coef[:, 2], [0, 0])
    assert_allclose(model.predict(np.array([[2.0, 4.0, 7.0]])), [[6, 3]])


def test_a_warning_of_a_descent_does_not_claim_what_only_the_exact_solver_does(workshop: TrainerContext) -> None:
    lines = ["temp,rainfall,humidity,apples,oranges", *(f"{i},{2 * i},7,{3 * i},{i + 1}" for i in range(6))]
    solver = replace(ON_CPU, epochs=2, learning_rate=1e-3)
    card = train(request(workshop, solver, "\n".join(lines).encode()), "job", workshop, tracker())
    model = workshop.registry.version("crop", 1).model
    assert model.coef[0, 2] != 0
    assert card.warnings
    for warning in card.warnings:
        assert "its coefficient is 0" not in warning
        assert "smallest" not in warning


def test_a_target_that_does_not_vary_has_no_r2(workshop: TrainerContext) -> None:
    lines = ["temp,rainfall,humidity,apples,oranges", *(f"{i},{i * i},{i**3},5,{i}" for i in range(8))]
    card = train(request(workshop, Exact(), "\n".join(lines).encode()), "job", workshop, tracker())
    apples, oranges = card.metrics["apples"], card.metrics["oranges"]
    assert isinstance(apples, dict)
    assert isinstance(oranges, dict)
    assert apples["r2"] is None
    assert oranges["r2"] == pytest.approx(1)


def test_without_an_intercept_the_rank_counts_the_features_alone(workshop: TrainerContext) -> None:
    card = train(request(workshop, Exact(fit_intercept=False)), "job", workshop, tracker())
    assert card.rank == 3
    assert card.warnings == ()
    assert_array_equal(workshop.registry.version("crop", 1).model.intercept, [0, 0])


def test_a_training_whose_rows_are_in_another_state_folder_says_so(workshop: TrainerContext) -> None:
    asked = request(workshop, Exact())
    workshop.spool.remove(asked.upload)
    with pytest.raises(Unavailable, match="not in the state folder"):
        train(asked, "job", workshop, tracker())
