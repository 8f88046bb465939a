from pathlib import Path

import pytest

from app.registry.folder.publisher import FolderPublisher


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "models"
    path.mkdir()
    return path


@pytest.fixture
def registry(folder: Path) -> FolderPublisher:
    return FolderPublisher(folder)
