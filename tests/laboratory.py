"""Trainings from tables in this process, without a service, for tests of many small tables."""

import io
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from app.data.columns.encoder import Encoder
from app.data.columns.options import ReadingOptions
from app.data.json_tables import json_table_to_arrow
from app.registry.folder.publisher import FolderPublisher
from app.registry.version_file import Version
from app.regression.solvers import Exact
from app.training.pipeline import TrainerContext, train
from app.training.planner import plan_file
from app.training.progress import ProgressReporter
from app.training.request import TrainingRequest
from app.training.uploads import UploadStore

MAX_BYTES = 1 << 30


class Laboratory:
    """Models in a folder."""

    def __init__(self, folder: Path) -> None:
        (folder / "models").mkdir(parents=True)
        self.context = TrainerContext(
            FolderPublisher(folder / "models"), UploadStore(folder / "spool"), folder / "checkpoints"
        )
        self._count = 0

    def new_model(self) -> str:
        self._count += 1
        return f"model-{self._count}"

    def train(
        self,
        content: bytes | Path,
        form: str,
        model: str | None = None,
        *,
        targets: tuple[str, ...] = ("y",),
        mode: Literal["replace", "update", "forget"] = "replace",
        reading: ReadingOptions = ReadingOptions(),  # noqa: B008 - frozen
    ) -> Version:
        """Train a version of the model from a file or its content, or of a new model. Return it."""
        if form == "json":
            with io.BytesIO() as stream:
                json_table_to_arrow(content.read_bytes() if isinstance(content, Path) else content, stream)
                content, form = stream.getvalue(), "arrow"
        upload = self.context.spool.new()
        with self.context.spool.open_new(upload) as file:
            if isinstance(content, bytes):
                file.write(content)
        path = self.context.spool.path(upload)
        if isinstance(content, Path):
            path.unlink()
            path.symlink_to(content)
        draft = TrainingRequest(
            model=model or self.new_model(),
            upload=upload,
            format=form,
            features=(),
            targets=targets,
            solver=Exact(),
            promote="always",
            fingerprint="",
            mode=mode,
            reading=reading,
        )
        request = plan_file(draft, path, self.context.registry, MAX_BYTES)
        train(request, None, self.context, ProgressReporter(lambda *_: None, lambda: False))
        return self.context.registry.current(request.model)


def predictions(version: Version, table: pa.Table) -> NDArray[np.float64]:
    """Return the predictions for the rows of a table, (n, k). NaN for a row with a gap."""
    (batch,) = table.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], table.schema)]
    encoder = Encoder(version.card.schema_of_rows.features)
    x = encoder.encode(batch.select(encoder.typed + encoder.texts), 1)
    complete = ~np.isnan(x).any(axis=1)
    found = np.full((len(x), len(version.model.targets)), np.nan)
    found[complete] = version.model.predict(x[complete])
    return found


def coefficients(version: Version, target: int = 0) -> dict[str, float]:
    """Return the coefficients by name, and the intercept."""
    model = version.model
    return {"intercept": float(model.intercept[target])} | dict(
        zip(model.columns, model.coef[target].tolist(), strict=True)
    )
