import json
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from fake_clock import Clock
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from app.regression.solvers.base import BestEpoch, Coefficients, TrainingState
from app.training.checkpoints import SAVE_SECONDS, Checkpoint
from app.training.progress import LossCurve

Array: TypeAlias = NDArray[np.float64]

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
STATE = TrainingState(
    epoch=7,
    current=Coefficients(np.array([[0.1, -1 / 3], [5e-324, 1.7e308]]), np.array([1.0, -0.0])),
    velocity=Coefficients(np.array([[0.5, -0.25], [0.0, 1e-300]]), np.array([-0.0, 7.0])),
    loss=2.0,
    monitored_loss=1.75,
    initial_loss=100.25,
    best=BestEpoch(
        6, Coefficients(np.array([[0.2, 0.3], [0.4, 0.5]]), np.array([3.0, 4.0])), loss=1.25, monitored_loss=1.5
    ),
)
OTHER = replace(STATE.current, coef=-STATE.current.coef)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("app.training.checkpoints.time", clock)
    return clock


def saved(path: Path, clock: Clock, state: TrainingState, curve: LossCurve | None = None) -> Checkpoint:
    checkpoint = Checkpoint(path)
    clock.now += SAVE_SECONDS
    checkpoint.save(state, curve or LossCurve())
    return checkpoint


def loaded(path: Path) -> tuple[TrainingState, LossCurve]:
    found = Checkpoint(path).load()
    assert found is not None, "there is no checkpoint to go on from"
    return found


def assert_identical(found: TrainingState, expected: TrainingState) -> None:
    for name, value in values_of(expected).items():
        one, other = np.asarray(values_of(found)[name]), np.asarray(value)
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert one.tobytes() == other.tobytes(), name


def values_of(state: TrainingState) -> dict[str, Any]:
    """Every number of a state, by its path."""
    coefficients = {"current": state.current, "velocity": state.velocity, "best": state.best.coefficients}
    plain = ("epoch", "loss", "monitored_loss", "initial_loss")
    return {
        **{name: getattr(state, name) for name in plain},
        **{f"best.{name}": getattr(state.best, name) for name in ("epoch", "loss", "monitored_loss")},
        **{f"{name}.coef": part.coef for name, part in coefficients.items()},
        **{f"{name}.intercept": part.intercept for name, part in coefficients.items()},
    }


@st.composite
def states(draw: st.DrawFn) -> TrainingState:
    k, p = draw(st.integers(1, 3)), draw(st.integers(1, 3))

    def drawn(*shape: int) -> Array:
        return draw(arrays(np.float64, shape, elements=FLOATS))

    def coefficients() -> Coefficients:
        return Coefficients(drawn(k, p), drawn(k))

    return TrainingState(
        epoch=draw(st.integers(0, 10**9)),
        current=coefficients(),
        velocity=coefficients(),
        loss=draw(FLOATS),
        monitored_loss=draw(FLOATS),
        initial_loss=draw(FLOATS),
        best=BestEpoch(draw(st.integers(0, 10**9)), coefficients(), draw(FLOATS), draw(FLOATS)),
    )


@settings(max_examples=60)
@given(states())
def test_a_state_is_loaded_to_the_last_bit(tmp_path: Path, clock: Clock, state: TrainingState) -> None:
    saved(tmp_path / "job.json", clock, state)
    assert_identical(loaded(tmp_path / "job.json")[0], state)


def test_the_loss_curve_is_loaded_with_its_stride(tmp_path: Path, clock: Clock) -> None:
    curve = LossCurve()
    for epoch in range(1200):
        curve.add(epoch, 1 / (epoch + 3))
    saved(tmp_path / "job.json", clock, STATE, curve)
    _, found = loaded(tmp_path / "job.json")
    assert found.points == curve.points
    assert found.stride == curve.stride > 1


def test_nothing_is_loaded_if_nothing_was_saved(tmp_path: Path) -> None:
    assert Checkpoint(tmp_path / "job.json").load() is None
    assert Checkpoint(tmp_path / "no folder" / "job.json").load() is None


def test_the_folder_is_created_with_the_first_state(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "state" / "checkpoints" / "job.json"
    saved(path, clock, STATE)
    assert_identical(loaded(path)[0], STATE)


def test_states_are_saved_at_most_once_a_second(tmp_path: Path, clock: Clock) -> None:
    assert SAVE_SECONDS == 1.0
    path = tmp_path / "job.json"
    checkpoint = Checkpoint(path)
    checkpoint.save(STATE, LossCurve())
    clock.now += 0.999
    checkpoint.save(STATE, LossCurve())
    assert not path.exists()
    clock.now += 0.001
    checkpoint.save(replace(STATE, epoch=8), LossCurve())
    clock.now += 0.999
    checkpoint.save(replace(STATE, epoch=9), LossCurve())
    assert loaded(path)[0].epoch == 8
    clock.now += 0.001
    checkpoint.save(replace(STATE, epoch=10), LossCurve())
    assert loaded(path)[0].epoch == 10


def test_a_new_state_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "job.json"
    checkpoint = saved(path, clock, STATE)
    clock.now += SAVE_SECONDS
    checkpoint.save(replace(STATE, epoch=8, current=OTHER), LossCurve())
    found, _ = loaded(path)
    assert found.epoch == 8
    assert_array_equal(found.current.coef, OTHER.coef)
    assert [entry.name for entry in tmp_path.iterdir()] == ["job.json"]


def test_a_state_is_replaced_as_a_whole_so_that_an_open_file_still_shows_the_old_one(
    tmp_path: Path, clock: Clock
) -> None:
    path = tmp_path / "job.json"
    checkpoint = saved(path, clock, STATE)
    with path.open("rb") as file:
        before = path.read_bytes()
        clock.now += SAVE_SECONDS
        checkpoint.save(replace(STATE, epoch=8), LossCurve())
        assert file.read() == before != path.read_bytes()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"{}", b"\xff", b'{"state": {}, "curve": [], "stride": 1}']
)
def test_an_unreadable_checkpoint_is_ignored(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "job.json"
    path.write_bytes(content)
    assert Checkpoint(path).load() is None


def test_a_checkpoint_of_an_older_format_is_ignored(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "job.json"
    saved(path, clock, STATE)
    content = json.loads(path.read_bytes())
    assert content.pop("form") == 3
    path.write_text(json.dumps(content))  # as it was before files had a form
    assert Checkpoint(path).load() is None
    path.write_text(json.dumps(content | {"form": 2}))
    assert Checkpoint(path).load() is None
    path.write_text(json.dumps(content | {"form": 3}))
    assert_identical(loaded(path)[0], STATE)


def test_a_checkpoint_truncated_anywhere_is_ignored(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "job.json"
    saved(path, clock, STATE)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert Checkpoint(path).load() is None
    path.write_bytes(content)
    assert_identical(loaded(path)[0], STATE)


def test_two_jobs_keep_their_states_apart(tmp_path: Path, clock: Clock) -> None:
    saved(tmp_path / "a.json", clock, STATE)
    saved(tmp_path / "b.json", clock, replace(STATE, epoch=1))
    assert loaded(tmp_path / "a.json")[0].epoch == 7
    assert loaded(tmp_path / "b.json")[0].epoch == 1
