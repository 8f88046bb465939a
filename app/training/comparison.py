"""Decide whether a new version is promoted by `if_better`: compare two models on rows that neither was fitted to."""

from dataclasses import dataclass

from app.errors import InvalidInput, ModelFileInvalid, ModelNotFound
from app.registry.reader import ModelReader
from app.regression.fit import FitResult
from app.regression.linear_model import LinearModel
from app.training.request import TrainingRequest

WORSE = "Not promoted: on these rows its cross-validated error exceeds the current version's error."
NOT_UNSEEN = (
    "Not promoted: the current version may have been fitted to these rows, so its error on them proves nothing. "
    "If it has not seen any of them, add `unseen: true`."
)
TOO_FEW_FOLDS = (
    "Not promoted: the rows of this update are all in one fold, so there is no model that was fitted to some of "
    "them and can be judged on others."
)


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison with the current version, and the reason if the new version is not promoted."""

    beats_current: bool | None = None  # None if they were not compared
    warning: str | None = None


def compare(request: TrainingRequest, result: FitResult, registry: ModelReader) -> Comparison:
    """Compare two errors on the request's rows: of models that were fitted to other rows, and of the current version.

    In an update the former are fitted to all earlier rows too, as the current version is. For rows that replace all
    others, the request must declare that the current version has not seen them. The new version is better than no
    current version. Nothing is compared unless the request asks for promotion of a better version.

    Raises InvalidInput if the current version has other columns.
    """
    validation = result.validation
    if request.promote != "if_better" or validation is None:
        return Comparison()
    current = _current_model(request, registry)
    if current is None:
        return Comparison(beats_current=True)
    if request.mode == "replace" and not request.unseen:
        return Comparison(None, NOT_UNSEEN)
    if validation.apart is None:
        return Comparison(None, TOO_FEW_FOLDS)
    centre, at_centre = None, current.intercept
    if current.centre_prediction is not None:
        centre, at_centre = current.statistics.shift[: len(current.columns)], current.centre_prediction
    residual = validation.data.residual_norms(current.coef, at_centre, centre)
    better = validation.apart.is_as_good_as(
        residual,
        coefficients=result.optimum.design.effective_coefficients(getattr(result.solver, "l2", 0.0)),
        share=validation.data.total_weight / result.statistics.total_weight,
    )
    return Comparison(better, None if better else WORSE)


def _current_model(request: TrainingRequest, registry: ModelReader) -> LinearModel | None:
    """Return the current version's model; None if there is none that can be read.

    Raises InvalidInput if it has other columns.
    """
    try:
        current = registry.current(request.model).model
    except (ModelNotFound, ModelFileInvalid):
        return None
    if (current.features, current.terms, current.targets) != (request.features, request.terms, request.targets):
        raise InvalidInput("The current version has other features, terms or targets, so the two cannot be compared.")
    return current
