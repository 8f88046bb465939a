import contextlib
import json
import math
import os
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from safetensors.numpy import load, save

from app.errors import ModelFileInvalid
from app.registry.model_card import SCHEMA, ModelCard
from app.registry.version_file import (
    MAX_FILE_BYTES,
    FileContent,
    Version,
    checksum,
    encode,
    open_file,
    read,
    read_card,
)
from app.regression.linear_model import LinearModel
from app.regression.solvers import Exact, GradientDescent, Solver, Start
from app.regression.sufficient_statistics import SufficientStatistics

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
ROWS = np.array([[1.0], [2.0], [4.0]])
MODEL = LinearModel(
    ("x",),
    ("y",),
    np.array([[2.0]]),
    np.array([0.1]),
    SufficientStatistics.from_rows(ROWS, ROWS),
    residual_norms=np.array([0.5]),
    unscaled_errors=np.array([1.5, 0.25]),
    inference_unavailable="no reason",
)
CARD = ModelCard(
    model="line",
    version=3,
    features=("x",),
    targets=("y",),
    created_at="2026-07-01T12:00:00.000Z",
    job="job",
    parent=2,
    solver=Exact(l2=0.5),
    rows=3,
    rank=2,
    condition_number=1.0,
    metrics={"y": {"r2": None, "rmse": 0.1}, "mse": 0.01},
    inference_unavailable="no reason",
    warnings=("a warning",),
)


PLACE = "s3://bucket/models/line/000003.safetensors"


def stored(folder: Path, content: bytes) -> Path:
    path = folder / "000003.safetensors"
    path.write_bytes(content)
    return path


def assert_identical(found: LinearModel, expected: LinearModel) -> None:
    assert (found.features, found.targets) == (expected.features, expected.targets)
    assert found.inference_unavailable == expected.inference_unavailable
    assert found.statistics.features == expected.statistics.features
    assert found.statistics.rows == expected.statistics.rows
    assert found.has_intercept == expected.has_intercept
    assert (found.unscaled_errors is None) == (expected.unscaled_errors is None)
    if found.unscaled_errors is not None and expected.unscaled_errors is not None:
        assert_array_equal(found.unscaled_errors, expected.unscaled_errors, strict=True)
    pairs = [
        (found.coef, expected.coef),
        (found.intercept, expected.intercept),
        (found.residual_norms, expected.residual_norms),
        *(
            (getattr(found.statistics, name), getattr(expected.statistics, name))
            for name in ("shift", "scale", "factor", "minimum", "maximum")
        ),
    ]
    for one, other in pairs:
        assert_array_equal(one.view(np.uint64), np.ascontiguousarray(other).view(np.uint64), strict=True)


def assert_refused(path: Path) -> None:
    with pytest.raises(ModelFileInvalid) as refused:
        read(path)
    assert str(path.parent) not in str(refused.value)
    if path.is_file():
        with pytest.raises(ModelFileInvalid, match=f"^{PLACE} "):
            read(FileContent(path.read_bytes(), PLACE))


def foreign(tensors: dict[str, tuple[str, list[int], bytes]], metadata: dict[str, str]) -> bytes:
    """A safetensors file with tensors of any type, numpy's or not."""
    header: dict[str, Any] = {"__metadata__": metadata}
    content = b""
    for name, (kind, shape, data) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(content), len(content) + len(data)]}
        content += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + content


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.integers(1, 4), st.integers(1, 3), st.data())
def test_any_model_is_read_back_to_the_last_bit(tmp_path: Path, p: int, k: int, data: st.DataObject) -> None:
    def drawn(*shape: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        return data.draw(arrays(np.float64, shape, elements=FLOATS))

    inference_unavailable = data.draw(st.sampled_from([None, "a reason"]))
    model = LinearModel(
        features=tuple(f"x{index}" for index in range(p)),
        targets=tuple(f"y{index}" for index in range(k)),
        coef=drawn(k, p),
        intercept=drawn(k),
        residual_norms=drawn(k),
        known_statistics=SufficientStatistics(
            features=p,
            rows=data.draw(st.integers(1, 2**53)),
            effective_rows=data.draw(st.floats(0.5, 1e15)),
            shift=drawn(p + k),
            scale=drawn(p + k),
            factor=drawn(p + k + 1, p + k + 1),
            minimum=drawn(p),
            maximum=drawn(p),
        ),
        unscaled_errors=drawn(1 + p) if inference_unavailable is None or data.draw(st.booleans()) else None,
        inference_unavailable=inference_unavailable,
    )
    card = replace(
        CARD,
        features=model.features,
        targets=model.targets,
        rows=model.statistics.rows,
        inference_unavailable=model.inference_unavailable,
    )
    content = encode(card, model)
    for found in (read(stored(tmp_path, content)), read(FileContent(content, PLACE))):
        assert found.card == card
        assert_identical(found.model, model)


def test_arrays_that_lie_across_memory_are_stored_as_they_read(tmp_path: Path) -> None:
    wide = SufficientStatistics.from_rows(np.array([[1.0, 2.0], [3.0, 5.0], [4.0, 4.0]]), np.eye(3)[:, :2])
    weights = np.array([[1.0, 2.0], [3.0, 4.0]]).T
    assert not weights.flags.c_contiguous
    model = LinearModel(("a", "b"), ("c", "d"), weights, np.zeros(2), wide, np.ones(2))
    card = replace(CARD, features=model.features, targets=model.targets)
    assert_array_equal(read(stored(tmp_path, encode(card, model))).model.coef, [[1.0, 3.0], [2.0, 4.0]])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.text(), st.text(), FLOATS, st.none() | st.integers(1, 10**12))
def test_any_card_is_read_back_as_it_was(
    tmp_path: Path, name: str, warning: str, metric: float, parent: int | None
) -> None:
    name, warning = (text.encode(errors="replace").decode() for text in (name, warning))
    assume(name not in CARD.features)
    card = replace(
        CARD, targets=(name,), warnings=(warning,), metrics={name: {"r2": metric}, "mse": metric}, parent=parent
    )
    path = stored(tmp_path, encode(card, MODEL))
    assert read(path).card == card
    assert read_card(path) == card


@pytest.mark.parametrize(
    "solver",
    [
        Exact(),
        Exact(l2=1e-3, fit_intercept=False),
        GradientDescent(),
        GradientDescent(start=Start(version=7), batch_size=5, patience=3, device="cuda"),
        GradientDescent(start=Start(weights=[[0.1, 1 / 3]], intercept=[math.pi])),
    ],
)
def test_every_solver_is_read_back_as_it_was(tmp_path: Path, solver: Solver) -> None:
    card = replace(CARD, solver=solver)
    assert read(stored(tmp_path, encode(card, MODEL))).card == card


@pytest.mark.slow
def test_a_flip_of_any_bits_in_any_byte_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    content = encode(CARD, MODEL)
    path = stored(tmp_path, content)
    refused = 0
    for index in range(len(content)):
        for flip in (1 << index % 8, 0xFF):
            altered = bytearray(content)
            altered[index] ^= flip
            path.write_bytes(altered)
            for source in (path, FileContent(bytes(altered), PLACE)):
                try:
                    found = read(source)
                except ModelFileInvalid:
                    refused += 1
                else:
                    assert found.card == CARD
                    assert_identical(found.model, MODEL)
    assert refused > 3.8 * len(content)  # all but blanks in the header, if those


def test_a_flip_of_any_byte_leaves_a_card_or_a_refusal_and_no_other_error(tmp_path: Path) -> None:
    # The card is read without its checksum, by whoever looks through the versions for a job's.
    content = encode(CARD, MODEL)
    path = stored(tmp_path, content)
    for index in range(len(content)):
        altered = bytearray(content)
        altered[index] ^= 1 << index % 8
        path.write_bytes(altered)
        for source in (path, FileContent(bytes(altered), PLACE)):
            with contextlib.suppress(ModelFileInvalid):
                assert isinstance(read_card(source), ModelCard)


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    content = encode(CARD, MODEL)
    for length in range(len(content)):
        assert_refused(stored(tmp_path, content[:length]))


def test_a_file_with_something_behind_its_end_is_refused(tmp_path: Path) -> None:
    assert_refused(stored(tmp_path, encode(CARD, MODEL) + b"\0"))


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"PK\x03\x04" + b"\0" * 60, b'{"coef": [1]}', b"\xff" * 64])
def test_a_file_of_another_format_is_refused(tmp_path: Path, content: bytes) -> None:
    path = stored(tmp_path, content)
    assert_refused(path)
    with pytest.raises(ModelFileInvalid):
        read_card(path)


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}, {"card": "{}"}, {"card": "{}", "sha256": "0" * 64}])
def test_a_safetensors_file_of_someone_else_is_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = stored(tmp_path, save({"coef": np.ones((2, 2))}, metadata=metadata))
    assert_refused(path)
    with pytest.raises(ModelFileInvalid):
        read_card(path)


@pytest.mark.parametrize("kind", ["BF16", "F16", "F8_E4M3", "BOOL", "I4", "C64"])
def test_tensors_of_any_other_type_are_refused(tmp_path: Path, kind: str) -> None:
    # Half of the world's safetensors files hold bfloat16, which numpy does not know.
    size = {"BF16": 2, "F16": 2, "C64": 8}.get(kind, 1)
    assert_refused(stored(tmp_path, foreign({"coef": (kind, [1], b"\0" * size)}, {})))


@pytest.mark.parametrize("card", ["[1]", "1", "null", '"card"', "[" * 100_000, "{", '{"schema": 1}', '{"schema": []}'])
def test_a_text_that_is_not_a_card_is_rejected(tmp_path: Path, card: str) -> None:
    path = stored(tmp_path, save({"coef": np.ones(1)}, metadata={"card": card}))
    assert_refused(path)
    with pytest.raises(ModelFileInvalid):
        read_card(path)


def test_a_card_of_a_later_schema_is_refused_with_both_schemas_in_the_message(tmp_path: Path) -> None:
    path = stored(tmp_path, encode(replace(CARD, schema=SCHEMA + 1), MODEL))
    for reading in (read, read_card):
        with pytest.raises(ModelFileInvalid, match=f"format {SCHEMA + 1}; this service reads formats 1 to {SCHEMA}"):
            reading(path)


@pytest.mark.parametrize(
    ("card", "tensors", "fault"),
    [
        ({}, {"coef": np.ones((1, 2))}, r"coef is float64 \(1, 2\) and not float64 \(1, 1\)"),
        ({}, {"coef": np.ones(1)}, r"coef is float64 \(1,\)"),
        ({}, {"coef": np.ones((1, 1), np.float32)}, "coef is float32"),
        ({}, {"coef": np.ones((1, 1), np.int64)}, "coef is int64"),
        ({}, {"coef": np.ones((1, 1), np.bool_)}, "coef is bool"),
        ({}, {"coef": np.array([[math.nan]])}, "coef is not finite"),
        ({}, {"intercept": np.array([math.inf])}, "intercept is not finite"),
        ({}, {"intercept": np.array(0.0)}, r"intercept is float64 \(\)"),
        ({}, {"residual_norms": np.ones(2)}, "residual_norms is"),
        ({}, {"statistics.effective_rows": np.array([])}, "statistics.effective_rows is"),
        ({}, {"statistics.effective_rows": np.array([math.nan])}, "statistics.effective_rows is not finite"),
        ({}, {"statistics.factor": np.eye(4)}, "statistics.factor is"),
        ({}, {"statistics.minimum": np.ones(2)}, "statistics.minimum is"),
        ({}, {"statistics.shift": None}, "statistics.shift is missing"),
        ({}, {"unscaled_errors": np.ones(3)}, "unscaled_errors is"),
        ({"inference_unavailable": None}, {"unscaled_errors": None}, "unscaled_errors is missing"),
        ({"rows": -5}, {}, "it has -5 rows"),
        ({"features": ()}, {}, "features and targets are none"),
        ({"targets": ()}, {}, "features and targets are none"),
        ({"features": ("x", "x")}, {"coef": np.ones((1, 2))}, "not distinct"),
        ({"features": ("y",)}, {}, "not distinct"),
        ({"terms": ("z^2",)}, {}, "its terms cannot be made from its features"),
        ({"terms": ("x", "x^1")}, {}, "its terms cannot be made from its features"),
        ({"terms": ("x", "x^2")}, {}, r"coef is float64 \(1, 1\) and not float64 \(1, 2\)"),
    ],
)
def test_numbers_that_make_no_model_are_refused_although_their_checksum_is_right(
    tmp_path: Path, card: dict[str, Any], tensors: dict[str, NDArray[Any] | None], fault: str
) -> None:
    found = {name: tensor for name, tensor in (load(encode(CARD, MODEL)) | tensors).items() if tensor is not None}
    text = msgspec.json.encode(replace(CARD, **card)).decode()
    path = stored(tmp_path, save(found, metadata={"card": text, "sha256": checksum(text, found)}))

    with pytest.raises(ModelFileInvalid, match=fault):
        read(path)


def test_a_file_larger_than_any_model_is_refused_unread(tmp_path: Path) -> None:
    path = stored(tmp_path, encode(CARD, MODEL))
    os.truncate(path, MAX_FILE_BYTES)
    open_file(path).close()
    os.truncate(path, MAX_FILE_BYTES + 1)
    for reading in (read, read_card, open_file):
        with pytest.raises(ModelFileInvalid, match="larger than any model"):
            reading(path)


def test_a_link_to_a_file_is_refused(tmp_path: Path) -> None:
    path = stored(tmp_path, encode(CARD, MODEL))
    link = tmp_path / "000001.safetensors"
    link.symlink_to(path)
    for reading in (read, read_card, open_file):
        with pytest.raises(ModelFileInvalid):
            reading(link)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_file_closed_to_this_user_is_refused_and_not_said_to_be_missing(tmp_path: Path) -> None:
    path = stored(tmp_path, encode(CARD, MODEL))
    path.chmod(0)
    for reading in (read, read_card, open_file):
        with pytest.raises(ModelFileInvalid, match="Permission denied"):
            reading(path)


def test_the_card_of_one_file_and_the_numbers_of_another_make_no_version(tmp_path: Path) -> None:
    other = replace(MODEL, coef=np.array([[2.5]]))
    one, two = encode(CARD, MODEL), encode(CARD, other)
    assert len(one) == len(two)
    header = 8 + struct.unpack("<Q", one[:8])[0]
    assert_refused(stored(tmp_path, one[:header] + two[header:]))
    assert_refused(stored(tmp_path, two[:header] + one[header:]))


def test_a_missing_file_is_distinguished_from_a_damaged_one(tmp_path: Path) -> None:
    for reading in (read, read_card, open_file):
        with pytest.raises(FileNotFoundError):
            reading(tmp_path / "000001.safetensors")


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "000001.safetensors"
    path.mkdir()
    assert_refused(path)
    with pytest.raises(ModelFileInvalid):
        read_card(path)


def test_the_shipped_model_is_read() -> None:
    shipped = Path(__file__).parents[2] / "models" / "crop-yield" / "000001.safetensors"
    found = read(shipped)
    assert isinstance(found, Version)
    assert (found.card.model, found.card.version) == ("crop-yield", 1)
    assert found.card.metrics["mse"] == pytest.approx(0.9094, abs=5e-5)
    prediction = found.model.predict(np.array([[75.0, 63.0, 44.0]]))
    assert prediction[0].tolist() == pytest.approx([53.80, 66.81], abs=5e-3)
