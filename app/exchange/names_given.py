"""Names of columns that a client gives for a file that has none."""

import csv
from collections.abc import Mapping

from app.errors import InvalidInput


def names_given(options: Mapping[str, str], option: str) -> list[str]:
    """Return the names in an option, which are separated by commas. Without the option, there are none."""
    try:
        return next(csv.reader([options.get(option, "")]), [])
    except csv.Error:
        raise InvalidInput.of_parameter(option, "Expected names of columns, separated by commas.") from None
