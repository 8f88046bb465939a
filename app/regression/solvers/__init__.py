"""What a caller may ask of the two ways to train, as plain values; torch is not needed to read or write them."""

from typing import Literal, TypeAlias

from msgspec import Struct


class Exact(Struct, frozen=True, tag_field="kind", tag="exact"):
    """The least-squares optimum, found at once from the sufficient statistics.

    `l2` is the ridge penalty on standardised columns: l2 * sum((weight_j * deviation_j)^2) is added to the sum of
    squared residuals, the intercept stays free. On `device` the rows are summarised.
    """

    l2: float = 0.0
    fit_intercept: bool = True
    device: Literal["cpu", "cuda"] = "cpu"


class Start(Struct, frozen=True, omit_defaults=True):
    """Where to descend from: a version of the model, or weights (k, p), a row for each target, and intercept (k,).

    In the record of a job such weights are only said to be uploaded: they wait beside the rows. `current` is the
    version that is current when the job's turn comes.
    """

    version: int | None = None
    weights: list[list[float]] | None = None
    intercept: list[float] | None = None
    uploaded: bool = False
    current: bool = False


class GradientDescent(Struct, frozen=True, tag_field="kind", tag="gradient_descent"):
    """Steps down the gradient of the mean squared error, the notebook's way.

    `batch_size` None is the full batch. `patience` stops after this number of epochs without a lower loss and keeps the
    best weights. The loss is the mean squared error of the rows that are held out from training or, without such rows,
    the objective that is descended. Momentum and weight decay are those of torch.optim.SGD: the objective is the mean
    squared error plus weight_decay / 2 times the sum of the squared weights and intercepts.
    """

    epochs: int = 100
    learning_rate: float = 1e-5
    batch_size: int | None = None
    shuffle: bool = True
    seed: int = 0
    start: Literal["random"] | Start = "random"
    momentum: float = 0.0
    weight_decay: float = 0.0
    standardize: bool = False
    patience: int | None = None
    validation_fraction: float = 0.0
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @property
    def needs_rows(self) -> bool:
        """Whether the statistics of the rows are not enough: the gradient of the full batch needs nothing else."""
        return self.batch_size is not None or self.validation_fraction > 0


Solver: TypeAlias = Exact | GradientDescent
