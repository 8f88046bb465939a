"""The kind of registry by the URL of the storage, and the first model in a new store."""

from pathlib import Path

import pytest
from buckets import bucket_url, faulty_proxy
from models_folder import published, slope
from service import wait_for

from app.errors import ModelNotFound
from app.registry.base import ModelPublisher
from app.registry.bucket.keys import pointer_key
from app.registry.folder.publisher import FolderPublisher
from app.registry.opening import open_registry


@pytest.fixture
def url(tmp_path: Path) -> str:
    return (tmp_path / "store").as_uri()


@pytest.fixture
def models_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    published(FolderPublisher(folder), 1, 2, 3, promoted=2)
    return folder


def started(url: str | None, models: Path) -> ModelPublisher:
    return open_registry(url, models, pinned="line", watch=True)


def test_without_a_url_the_registry_is_the_models_folder(models_folder: Path) -> None:
    registry = started(None, models_folder)
    assert (registry.storage, registry.versions("line")) == ("folder", [1, 2, 3])


def test_a_store_that_never_had_the_default_model_gets_it_from_the_models_folder_once(
    url: str, models_folder: Path
) -> None:
    first, second = started(url, models_folder), started(url, models_folder)
    assert (first.storage, first.versions("line"), second.versions("line")) == ("store", [1], [1])
    assert slope(second.current("line")) == 2
    assert second.current("line").card.parent is None

    first.delete_model("line")
    with pytest.raises(ModelNotFound):
        started(url, models_folder).current("line")


def test_the_default_model_is_published_once_the_store_is_reached(
    models_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.registry.bucket.watch.FIRST_SECONDS", 0.1)
    url = bucket_url()
    trainer = open_registry(url, models_folder)
    with faulty_proxy() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        proxy.set("refuse")
        registry = started(url, models_folder)
        assert trainer.models() == []
        proxy.set("ok")
        wait_for(lambda: trainer.models() == ["line"])
        assert slope(registry.current("line")) == 2


def test_a_default_model_is_not_published_over_versions_without_a_pointer(
    url: str, models_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    started(url, models_folder)
    (tmp_path / "store" / pointer_key("line")).unlink()
    assert started(url, models_folder).models() == []
    assert {record.getMessage() for record in caplog.records} >= {"model not copied to the store"}
    assert len(list((tmp_path / "store").rglob("*.safetensors"))) == 1


def test_a_trainer_and_a_service_without_a_default_model_publish_nothing(url: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert open_registry(url, tmp_path / "empty").models() == []
    assert started(url, tmp_path / "empty").models() == []
