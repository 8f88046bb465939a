"""StreamingQR with its arithmetic on a CUDA device, in torch."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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

    def _add_chunk(self, chunk: TrainingBatch) -> None:
        rows = self._rows_on_device(chunk)
        if self._gram is not None and not (self._has_flat and bool(rows[:, self._on_device(self._flat)].any())):
            whitened = torch.ldexp(rows, self._on_device(-self._exponents)) if self._is_scaled else rows
            if self._whiten:
                whitened = torch.linalg.solve_triangular(
                    self._on_device(self._preconditioner), whitened, upper=True, left=False
                )
            if self._add_products((whitened.T @ whitened).cpu().numpy()):
                return
        self._factorise(rows.cpu().numpy().T)

    def _rows_on_device(self, chunk: TrainingBatch) -> Tensor:
        inputs, targets = self._on_device(chunk.x), self._on_device(chunk.y)
        self._observe_range(inputs.amin(dim=0).cpu().numpy(), inputs.amax(dim=0).cpu().numpy())
        rows = torch.hstack([torch.ones_like(inputs[:, :1]), inputs, targets])
        rows[:, 1:] -= self._on_device(self._shift)
        if chunk.sample_weight is not None:
            rows *= self._on_device(np.sqrt(chunk.sample_weight))[:, None]
        return rows

    def _on_device(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)
