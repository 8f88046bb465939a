"""StreamingQR with its arithmetic on a CUDA device, in torch."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.regression.cross_products import SegmentSums, weight_sums
from app.regression.errors import DeviceUnavailable
from app.regression.streaming_qr import StreamingQR
from app.regression.training_batch import TrainingBatch

CHUNK_BYTES = 1 << 26  # Bytes of the columns processed at once: enough work for the device, little of its memory.


class CudaStreamingQR(StreamingQR):
    """Shift, whiten and multiply rows on the device, in float64, which TF32 does not affect.

    Decisions on (d, d) matrices, and rows that need Householder QR, stay on the CPU.
    """

    def __init__(self, first: TrainingBatch, device: str = "cuda") -> None:
        """Choose the shift and the scale from the first batch. Raises DeviceUnavailable if there is no such device."""
        if device == "cuda" and not torch.cuda.is_available():
            raise DeviceUnavailable('There is no CUDA device on the training machine. Send "cpu".')
        super().__init__(first, CHUNK_BYTES)
        self._device = torch.device(device)

    def add(self, batch: TrainingBatch) -> None:
        for chunk in self._coordinates.chunks(batch):
            rows = self._rows_on_device(chunk)
            self._add_rows(rows)
            self._check()

    def _add_rows(self, rows: Tensor) -> None:
        coordinates = self._coordinates
        flat = coordinates.flat
        if coordinates.has_products and not (flat is not None and bool(rows[:, self._on_device(flat)].any())):
            exponents, factor = coordinates.exponents, coordinates.preconditioner
            whitened = rows if exponents is None else torch.ldexp(rows, self._on_device(-exponents))
            if factor is not None:
                whitened = torch.linalg.solve_triangular(self._on_device(factor), whitened, upper=True, left=False)
            if self._add_products((whitened.T @ whitened).cpu().numpy()):
                return
        self._factorise(rows.cpu().numpy().T)

    def _rows_on_device(self, chunk: TrainingBatch) -> Tensor:
        """Return the rows [1, z - shift], multiplied by the roots of their weights. They are counted."""
        inputs, targets = self._on_device(chunk.x), self._on_device(chunk.y)
        ranges = inputs.amin(dim=0).cpu().numpy(), inputs.amax(dim=0).cpu().numpy()
        self._observe(len(chunk.x), SegmentSums(*ranges, *weight_sums(chunk)))
        rows = torch.hstack([torch.ones_like(inputs[:, :1]), inputs, targets])
        rows[:, 1:] -= self._on_device(self._coordinates.shift)
        if chunk.sample_weight is not None:
            rows *= self._on_device(np.sqrt(chunk.sample_weight))[:, None]
        return rows

    def _on_device(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)
