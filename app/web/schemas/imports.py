"""The options of POST /models/{model}/versions."""

from typing import Literal

from pydantic import ConfigDict, Field

from app.web.schemas.openapi_schema import Schema


class ImportOptions(Schema):
    """Options in the query, or in fields of a form."""

    model_config = ConfigDict(extra="forbid", strict=False)

    promote: Literal["always", "if_better", "never"] = "always"
    """When the new version becomes current. An import brings no rows to compare versions on, so with `if_better` it
    becomes current only if no version is; evaluate the two, and promote it if it is better."""
    features: str = Field("", examples=["temp,rainfall,humidity"])
    """Names of the features, separated by commas, for a file that does not name them: a `state_dict`."""
    targets: str = Field("", examples=["apples,oranges"])
    """Names of the targets, as `features`."""
