"""The numbers of rows by level in a version's file."""

from pathlib import Path

import numpy as np
from numpy.testing import assert_array_equal
from trained import model_from, version_of

from app.registry.version_file import encode, read
from app.regression.solvers import Exact
from app.regression.summaries import summarise
from app.regression.training_batch import TrainingBatch

ROWS = np.random.default_rng(0).normal(size=(20, 2))
ROWS[:, 1] = ROWS[:, 1] > 0


def test_the_rows_of_each_level_are_stored(tmp_path: Path) -> None:
    for blocks in ([slice(1, 2)], []):
        model = model_from(summarise([TrainingBatch(ROWS, ROWS[:, :1])], blocks=blocks), Exact())
        version = version_of(model)
        path = tmp_path / "000001.safetensors"
        path.write_bytes(encode(version.card, version.model))

        found = read(path).model.statistics.indicator_rows

        if blocks:
            assert found is not None
            assert found.dtype == np.int64
            assert_array_equal(found, [-1, ROWS[:, 1].sum()])
        else:
            assert found is None
