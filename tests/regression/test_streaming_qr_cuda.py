"""The accumulator for CUDA devices; all but the device itself is tested on any machine."""

from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from app.regression import streaming_qr_cuda
from app.regression.errors import DeviceUnavailable
from app.regression.least_squares import fit
from app.regression.solvers import Exact
from app.regression.streaming_qr import StreamingQR
from app.regression.streaming_qr_cuda import CudaStreamingQR
from app.regression.summaries import summarise, summarise_folds
from app.regression.training_batch import TrainingBatch

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_cuda)]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_qr_cuda, "CHUNK_BYTES", 0)  # a chunk is then twice as many rows as there are columns


def some_rows(kind: str) -> TrainingBatch:
    random = np.random.default_rng(0)
    x = random.normal(size=(500, 4)) + 1e3
    if kind == "in need of whitening":
        x[:, 3] = x[:, 2] + 1e-4 * x[:, 3]
    if kind == "collinear":
        x[:, 3] = x[:, 2] + x[:, 1]
    if kind == "drifting":
        x *= np.logspace(0, 6, len(x))[:, np.newaxis]
    weights = random.uniform(0, 2, len(x)) if kind == "weighted" else None
    return TrainingBatch(x, x @ random.normal(size=(4, 2)) + random.normal(size=(500, 2)), weights)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["plain", "in need of whitening", "collinear", "drifting", "weighted"])
def test_a_device_comes_to_the_same_statistics_as_the_cpu(device: str, kind: str) -> None:
    rows = some_rows(kind)

    found, expected = summarise([rows], partial(CudaStreamingQR, device=device)), summarise([rows])

    # Factors of collinear rows are the same up to a rotation.
    ours, theirs = (part.raw_factor.T @ part.raw_factor for part in (found, expected))
    scale = np.sqrt(theirs.diagonal())
    assert_allclose(ours / np.outer(scale, scale), theirs / np.outer(scale, scale), rtol=0, atol=1e-12)
    assert found.rows == expected.rows
    assert_allclose(found.minimum, expected.minimum, rtol=0)
    assert_allclose(found.maximum, expected.maximum, rtol=0)


@pytest.mark.parametrize("device", DEVICES)
def test_folds_can_be_summarised_on_a_device(device: str) -> None:
    rows = some_rows("plain")
    found = summarise_folds([rows], 3, partial(CudaStreamingQR, device=device))
    for ours, theirs in zip(found.values(), summarise_folds([rows], 3, StreamingQR).values(), strict=True):
        assert_allclose(fit(ours, Exact()).coef, fit(theirs, Exact()).coef, rtol=1e-9)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_without_a_device_the_rows_are_refused() -> None:
    with pytest.raises(DeviceUnavailable, match="no CUDA device"):
        summarise([some_rows("plain")], CudaStreamingQR)
