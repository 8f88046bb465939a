"""The options of POST /models/{model}/merge."""

from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from app.regression.solvers import Exact
from app.training.request import TrainingRequest
from app.training.version_files import VERSION
from app.web.schemas.openapi_schema import Schema


class MergeOptions(Schema):
    """Options in the query."""

    model_config = ConfigDict(extra="forbid", strict=False, allow_inf_nan=False)

    mode: Literal["merge", "forget"] = "merge"
    """`merge`: add the rows of the files to those of the current version; `forget`: take them out of those."""
    promote: Literal["always", "never"] = "always"
    """When the new version becomes current."""
    l2: float | None = Field(None, ge=0)
    """Ridge penalty. Default: the current version's, or that of the first file for a new model."""
    fit_intercept: bool | None = None
    """Default: as in the current version, or in the first file for a new model."""
    trained_in: int | None = Field(None, ge=1)
    """With `forget`: the version in which the rows were added, if a decay has reduced the current version's weights."""
    share: float | None = Field(None, gt=0, le=1)
    """With `forget`, instead of `trained_in`: the share of the rows' weight to take out."""

    @model_validator(mode="after")
    def _names_one_share(self) -> Self:
        if (self.trained_in, self.share) != (None, None) and self.mode != "forget":
            raise ValueError("Only mode forget has trained_in and share")
        if self.trained_in is not None and self.share is not None:
            raise ValueError("Give either trained_in or share")
        return self

    def to_request(self, *, model: str, upload: str, fingerprint: str) -> TrainingRequest:
        """Return the request as far as the options give it. The files add the columns."""
        given = {"l2": self.l2, "fit_intercept": self.fit_intercept}
        defaults = Exact()
        return TrainingRequest(
            model=model,
            upload=upload,
            format=VERSION,
            features=(),
            targets=(),
            solver=Exact(
                l2=defaults.l2 if self.l2 is None else self.l2,
                fit_intercept=defaults.fit_intercept if self.fit_intercept is None else self.fit_intercept,
            ),
            promote=self.promote,
            fingerprint=fingerprint,
            mode="update" if self.mode == "merge" else "forget",
            inherits=tuple(name for name, value in given.items() if value is None),
            trained_in=self.trained_in,
            share=self.share,
        )
