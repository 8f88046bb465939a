"""A version as the state_dict of torch.nn.Linear, in safetensors."""

from collections.abc import Mapping

import msgspec
import numpy as np
from safetensors.numpy import save

from app.data.columns.schema import TableSchema
from app.exchange.left_behind import left_behind
from app.exchange.portable import PortableModel
from app.registry.version_file import Version

COLUMNS = (
    "Terms and the encoding of categories, booleans, dates and gaps are not carried. The layer takes the encoded "
    "columns, which the metadata names."
)
CENTRE = "The service subtracts a centre from the columns to limit rounding errors. The layer does not."


class SafetensorsExport:
    """`weight` (k, p) and `bias` (k) in float64, for `nn.Linear(p, k, dtype=torch.float64)`."""

    name = "safetensors"
    media_type = "application/vnd.safetensors"
    extension = ".safetensors"
    options: Mapping[str, tuple[str, ...]] = {}

    def not_carried(self, version: Version) -> tuple[str, ...]:
        is_encoded = bool(version.card.terms) or any(not is_plain for is_plain in _are_numbers(version.table))
        centre = (CENTRE,) if version.model.centre is not None else ()
        return (*left_behind(version), *((COLUMNS,) if is_encoded else ()), *centre)

    def write(self, version: Version, options: Mapping[str, str]) -> bytes:  # noqa: ARG002 - it has none
        model = PortableModel.of(version)
        tensors = {"weight": np.ascontiguousarray(model.coef), "bias": np.ascontiguousarray(model.intercept)}
        lists = {
            "features": [column.name for column in model.table.features],
            "columns": model.columns,
            "targets": model.targets,
            "not_carried": self.not_carried(version),
        }
        # "pt" is the mark of tensors of PyTorch, which some readers ask for.
        metadata = {"format": "pt", **model.description}
        return save(tensors, metadata | {name: msgspec.json.encode(names).decode() for name, names in lists.items()})


def _are_numbers(table: TableSchema) -> list[bool]:
    return [column.is_plain for column in table.features]
