"""Rebuild the shipped model: `python models/rebuild.py FOLDER` trains version 1 of crop-yield into FOLDER."""

import sys
from pathlib import Path

from app.registry.folder.publisher import FolderPublisher
from app.regression.solvers import Exact
from app.training.pipeline import TrainerContext, train
from app.training.progress import ProgressReporter
from app.training.request import TrainingRequest
from app.training.uploads import UploadStore

ROWS = Path(__file__).parent / "crop-yield" / "yields.csv"


def main(folder: Path) -> None:
    request = TrainingRequest(
        model="crop-yield",
        upload=ROWS.name,
        format="csv",
        features=("temp", "rainfall", "humidity"),
        targets=("apples", "oranges"),
        solver=Exact(),
        promote="always",
        fingerprint="",
    )
    registry = FolderPublisher(folder)
    workshop = TrainerContext(registry, UploadStore(ROWS.parent), folder)
    card = train(request, None, workshop, ProgressReporter(lambda _progress, _curve: None, lambda: False))
    registry.promote(card.model, card.version)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
