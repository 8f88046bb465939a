"""Rules for the weights of rows."""

import numpy as np

from app.data.batch import Array
from app.regression.sufficient_statistics import WeightKind

NEGATIVE = "A weight cannot be negative."
NOT_WHOLE = (
    "A frequency weight is a whole number: how many times the row was observed. Other weights need the weight kind "
    "`precision`."
)


def first_fault(weights: Array, kind: WeightKind) -> tuple[int, str] | None:
    """Return the index of the first weight that its kind does not allow, and the reason; None if there is none.

    A missing weight, NaN, is not a fault here.
    """
    negative = weights < 0
    faults = negative if kind == "precision" else negative | (weights % 1 > 0)
    if not faults.any():
        return None
    index = int(np.argmax(faults))
    return index, NEGATIVE if negative[index] else NOT_WHOLE
