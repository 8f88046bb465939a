from pathlib import Path

import pytest
from registries import Place


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where the registry is: in a folder, unless the test runs over other kinds."""
    return Place.new(getattr(request, "param", "folder"), tmp_path)
