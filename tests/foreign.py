"""Version files from elsewhere: changed by hand, and merged in this process."""

import contextlib
import json
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from laboratory import Laboratory
from numpy.typing import NDArray
from safetensors.numpy import load, save

from app.registry.version_file import Version, checksum
from app.regression.solvers import Exact
from app.training.merge_plan import plan_merge
from app.training.pipeline import train
from app.training.progress import ProgressReporter
from app.training.request import TrainingRequest
from app.training.version_files import VERSION, VersionFilesWriter

Tensors = dict[str, NDArray[Any]]
Change = Callable[[dict[str, Any], Tensors], object]

MIN_ROWS = 20


def rewritten(content: bytes, change: Change) -> bytes:
    """Return a file with a changed card and changed tensors, and the checksum that it then has."""
    length = int.from_bytes(content[:8], "little")
    card = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["card"])
    tensors = {name: tensor.copy() for name, tensor in load(content).items()}
    change(card, tensors)
    text = json.dumps(card)
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    return save(tensors, metadata={"card": text, "sha256": checksum(text, tensors)})


def merge(
    laboratory: Laboratory,
    model: str,
    *files: bytes,
    mode: Literal["update", "forget"] = "update",
    promote: Literal["always", "never"] = "always",
    min_rows: int = MIN_ROWS,
    **options: Any,
) -> Version:
    """Merge files with a model, or take them out of it. Return the new version."""
    spool, registry = laboratory.context.spool, laboratory.context.registry
    upload = spool.new()
    with spool.open_new(upload) as file:
        writer = VersionFilesWriter(file)
        for content in files:
            writer.begin()
            writer.write(content)
        writer.end()
    draft = TrainingRequest(
        model=model,
        upload=upload,
        format=VERSION,
        features=(),
        targets=(),
        solver=Exact(),
        promote=promote,
        fingerprint="",
        mode=mode,
        inherits=("l2", "fit_intercept"),
        **options,
    )
    request = plan_merge(draft, spool.path(upload), registry, min_rows, contextlib.nullcontext)
    card = train(request, None, laboratory.context, ProgressReporter(lambda *_: None, lambda: False))
    return registry.version(model, card.version)
