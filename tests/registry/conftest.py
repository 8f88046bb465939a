from pathlib import Path

import pytest
from registries import Place

from app.registry.base import ModelPublisher


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where the registry is: in a folder, unless the test runs over other kinds."""
    return Place.new(getattr(request, "param", "folder"), tmp_path)


@pytest.fixture
def folder(place: Place) -> Path:
    return place.folder


@pytest.fixture
def registry(place: Place) -> ModelPublisher:
    return place.open()
