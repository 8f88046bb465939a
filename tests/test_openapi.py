"""The OpenAPI document, taken at its word; `make fuzz` does so at length."""

from pathlib import Path

import pytest
from fuzz import fuzz, start


@pytest.mark.slow
def test_requests_made_from_the_document_are_answered_as_it_says(tmp_path: Path) -> None:
    service = start(tmp_path)
    try:
        status, cases, report = fuzz(service, examples=3, seed=1)
    finally:
        service.stop()

    assert status == 0, report
    assert cases > 500
    assert "Traceback" not in service.log.read_text()
