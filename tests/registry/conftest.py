from pathlib import Path

import pytest

from app.registry.publisher import ModelPublisher


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "models"
    path.mkdir()
    return path


@pytest.fixture
def registry(folder: Path) -> ModelPublisher:
    return ModelPublisher(folder)
