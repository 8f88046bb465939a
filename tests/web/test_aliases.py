"""Aliases of versions: clients predict with a name, and an operator moves it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from service import Service
from threaded_service import ThreadedService
from yields import publish_yields

from app.errors import Conflict, InvalidInput, NotFound, StoreUnavailable
from app.registry.aliases import MAX_ALIASES, Aliases
from app.storage.folder_store import FolderStore
from app.storage.store import BlobChanged

ROW = {"instances": [[75, 63, 44]]}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = ThreadedService(tmp_path_factory.mktemp("aliases"))
    publish_yields(running.models)
    running.start()
    yield running
    running.stop()


def set_alias(service: Service, alias: str, version: object, model: str = "crop-yield") -> httpx.Response:
    return service.client.put(f"/models/{model}/aliases/{alias}", json={"version": version})


def test_a_version_with_an_alias_is_deleted_only_after_its_alias(own: Service) -> None:
    set_alias(own, "kept", 1)
    refused = own.client.delete("/models/crop-yield/versions/1")
    assert (refused.status_code, refused.json()["detail"]) == (
        409,
        'Version 1 has the alias "kept". Move the alias, or delete it first.',
    )
    for _ in range(2):
        assert own.client.delete("/models/crop-yield/aliases/kept").status_code == 204
    missing = own.client.post("/models/crop-yield/aliases/kept/predict", json=ROW)
    assert (missing.status_code, missing.json()["detail"]) == (
        404,
        'Model "crop-yield" has no alias "kept". GET /models/crop-yield/aliases lists them.',
    )


def test_the_aliases_of_a_deleted_model_are_gone(own: Service) -> None:
    publish_yields(own.models, "typo")
    set_alias(own, "champion", 1, "typo")
    assert own.client.delete("/models/typo", headers={"if-match": "*"}).status_code == 204
    publish_yields(own.models, "typo")
    assert own.client.get("/models/typo/aliases").json()["aliases"] == {}


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/models/crop-yield/aliases/champion", {"version": 99}, 404, "has no version 99"),
        ("/models/none/aliases/champion", {"version": 1}, 404, 'There is no model "none"'),
        ("/models/crop-yield/aliases/current", {"version": 1}, 422, "a promotion changes it"),
        ("/models/crop-yield/aliases/A%20b", {"version": 1}, 422, "A name has 1 to 64"),
        ("/models/crop-yield/aliases/champion", {"version": "1"}, 422, "version"),
        ("/models/crop-yield/aliases/champion", {}, 422, "version"),
    ],
)
def test_an_alias_at_fault_is_refused(own: Service, path: str, body: object, status: int, text: str) -> None:
    answer = own.client.put(path, json=body)
    assert answer.status_code == status
    assert text in answer.json()["detail"]


def test_hostile_names_are_not_repeated(own: Service) -> None:
    for path in ("/models/crop-yield/aliases/%3Cscript%3E/predict", "/models/..%3Cscript%3E/aliases/a/predict"):
        answer = own.client.post(path, json=ROW)
        assert answer.status_code == 404
        assert "script" not in answer.text


def test_two_processes_change_the_aliases_of_a_model_at_once_and_none_is_lost(tmp_path: Path) -> None:
    class Racing(FolderStore):
        """Another process sets an alias between the reading and the writing."""

        raced = False

        def put_if_match(self, key: str, content: bytes, etag: str) -> str:
            if not self.raced:
                self.raced = True
                Aliases(FolderStore(tmp_path)).set("crop", "other", 7)
            return super().put_if_match(key, content, etag)

    aliases = Aliases(Racing(tmp_path))
    aliases.set("crop", "first", 1)
    aliases.set("crop", "second", 2)
    assert aliases.all("crop") == {"first": 1, "other": 7, "second": 2}


def test_a_store_that_does_not_answer_leaves_the_known_aliases_in_use(tmp_path: Path) -> None:
    class Lost(FolderStore):
        lost = False

        def get_if_changed(self, key: str, etag: str) -> Any:
            if self.lost:
                raise StoreUnavailable("The store does not answer.")
            return super().get_if_changed(key, etag)

    store = Lost(tmp_path)
    aliases = Aliases(store)
    aliases.set("crop", "champion", 1)
    store.lost = True
    assert aliases.version("crop", "champion") == 1
    with pytest.raises(NotFound):
        aliases.version("crop", "other")
    with pytest.raises(StoreUnavailable):
        aliases.set("crop", "champion", 2)


def test_a_model_has_a_limited_number_of_aliases_and_damaged_ones_are_replaced(tmp_path: Path) -> None:
    aliases = Aliases(FolderStore(tmp_path))
    for number in range(MAX_ALIASES):
        aliases.set("crop", f"alias-{number}", 1)
    with pytest.raises(Conflict, match="which is the limit"):
        aliases.set("crop", "one-more", 1)
    with pytest.raises(InvalidInput):
        aliases.set("crop", "Capital", 1)
    (tmp_path / "aliases" / "crop.json").write_bytes(b"[")
    assert Aliases(FolderStore(tmp_path)).all("crop") == {}
    Aliases(FolderStore(tmp_path)).set("crop", "champion", 3)
    assert aliases.version("crop", "champion") == 3


def test_a_write_that_always_finds_another_one_gives_up(tmp_path: Path) -> None:
    class Contended(FolderStore):
        def put_if_absent(self, key: str, content: bytes) -> str:
            raise BlobChanged(key, content)

    with pytest.raises(Conflict, match="Try again"):
        Aliases(Contended(tmp_path)).set("crop", "champion", 1)
