"""Decide whether a new version is promoted by `if_better`: compare two models on rows that neither was fitted to."""

from app.data.columns.schema import TableSchema
from app.errors import InvalidInput, ModelFileInvalid, ModelNotFound
from app.registry.base import ModelReader
from app.registry.version_file import Version
from app.regression.fit import FitResult
from app.training.encoded import coefficients_on, has_kinds_of
from app.training.parent import has_columns_of
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


def comparable_version(request: TrainingRequest, schema: TableSchema, registry: ModelReader) -> Version | None:
    """Return the current version if the request asks for a better one and a current one can be read, otherwise None.

    Raises InvalidInput if it has other columns.
    """
    if request.promote != "if_better":
        return None
    try:
        version = registry.current(request.model)
    except (ModelNotFound, ModelFileInvalid):
        return None
    if not (has_columns_of(version, request) and has_kinds_of(version, schema)):
        raise InvalidInput(
            "The current version has other features, terms or targets, or features of other kinds, so the two cannot "
            "be compared."
        )
    return version


def compare(
    request: TrainingRequest, result: FitResult, schema: TableSchema, registry: ModelReader
) -> tuple[bool | None, str | None]:
    """Compare the cross-validated error on the request's rows with the current version's error on them.

    Return True if the new version is better, None if nothing was compared, and the reason if it is not promoted.
    Nothing is compared unless the request asks for promotion of a better version. If no current version can be read,
    the new one is better.

    In an update, the models of the cross-validation are also fitted to all earlier rows, as the current version is. For
    rows that replace all others, the request must declare that the current version has not seen them. A level that the
    current version does not know counts as its reference level.

    Raises InvalidInput if the current version has other columns.
    """
    validation = result.validation
    if request.promote != "if_better" or validation is None:
        return None, None
    version = comparable_version(request, schema, registry)
    if version is None:
        return True, None
    if request.mode == "replace" and not request.unseen:
        return None, NOT_UNSEEN
    if validation.apart is None:
        return None, TOO_FEW_FOLDS
    current, columns = version.model, result.model.columns
    coefficients = coefficients_on(version, schema, columns)
    centre, at_centre = None, coefficients.intercept
    if current.centre_prediction is not None and current.columns == columns:
        centre, at_centre = current.shift, current.centre_prediction
    better = validation.apart.is_as_good_as(
        validation.data.residual_norms(coefficients.coef, at_centre, centre),
        coefficients=result.optimum.design.effective_coefficients(getattr(result.solver, "l2", 0.0)),
        share=validation.data.total_weight / result.statistics.total_weight,
    )
    return better, None if better else WORSE
