"""Splits: several versions answer a model's requests, and a shadow predicts too."""

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from memory_store import MemoryStore
from service import INPUTS, MAX_SECONDS, NOTEBOOK, TARGETS, Service, copy_models, wait_for
from threaded_service import ThreadedService, kept_logging
from yields import publish_yields

from app.errors import Conflict, StoreUnavailable
from app.main import app as application
from app.registry.folder.publisher import FolderPublisher
from app.registry.splits import BUCKETS, KEY, POLL_SECONDS, Split, Splits, bucket_of
from app.storage.folder_store import FolderStore
from app.storage.store import Blob, BlobChanged
from app.web.fast_path import PredictFastPath

NAMES: dict[str, Any] = {"feature_names": ["temp", "rainfall", "humidity"], "target_names": ["apples", "oranges"]}
ROW = {"instances": [[75, 63, 44]]}
TRAFFIC = "/models/crop-yield/traffic"
OBJECTS = {"instances": [{"temp": 75, "rainfall": 63, "humidity": 44}]}
WHOLE: dict[str, Any] = {
    "model": "crop-yield",
    "set_at": None,
    "answered": {},
    "shadow": None,
    "column_differences": {},
}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Version 2 predicts 10 more apples than version 3."""
    running = ThreadedService(tmp_path_factory.mktemp("traffic"))
    assert publish_yields(running.models, more_apples=10) == 2
    assert publish_yields(running.models) == 3
    running.start()
    yield running
    running.stop()


@pytest.fixture
def service(own: Service) -> Iterator[Service]:
    """The service with version 3 current and no split."""
    promote(own, 3)
    assert own.client.delete(TRAFFIC).status_code == 204
    yield own
    own.client.delete(TRAFFIC)


def promote(service: Service, version: int) -> None:
    assert service.client.put("/models/crop-yield/current", json={"version": version}).status_code == 200


def split(service: Service, body: object) -> dict[str, Any]:
    answer = service.client.put(TRAFFIC, json=body)
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    return view


def served(client: httpx.Client, path: str = "/predict", **headers: str) -> int:
    answer = client.post(path, json=ROW, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["linserve-version"] == str(answer.json()["version"])
    return int(answer.headers["linserve-version"])


def test_each_version_answers_its_share_of_the_clients_and_a_client_keeps_its_version(service: Service) -> None:
    view = split(service, {"3": 70, "2": 30})
    assert (view["current"], view["shares"]) == (3, {"2": 30, "3": 70})
    client, shared = service.client, Split.new(3, {3: 70, 2: 30}, None)
    keys = [f"client-{number}" for number in range(40)]
    first = {key: shared.version_of(bucket_of("crop-yield", key)) for key in keys}
    assert set(first.values()) == {2, 3}
    for path in ("/predict", "/models/crop-yield/predict"):
        assert {key: served(client, path, **{"linserve-sticky": key}) for key in keys} == first
    assert len({served(client) for _ in range(3)}) == 1  # by the address
    assert [served(client, f"/models/crop-yield/versions/{version}/predict") for version in (1, 2)] == [1, 2]
    other = next(key for key in keys if first[key] == 2)
    assert served(client, "/models/crop-yield/aliases/current/predict", **{"linserve-sticky": other}) == 3
    # Clients of version 2 stay there if its share grows.
    split(service, {"3": 60, "2": 40})
    kept = [key for key in keys if first[key] == 2]
    assert {served(client, **{"Linserve-Sticky": key}) for key in kept} == {2}


def test_keys_of_clients_are_spread_over_the_versions_by_their_shares() -> None:
    shared = Split.new(3, {3: 70, 2: 30}, None)
    counts = Counter(shared.version_of(bucket_of("crop-yield", f"client-{number}")) for number in range(4000))
    assert set(counts) == {2, 3}
    assert abs(counts[2] - 1200) < 4 * math.sqrt(4000 * 0.3 * 0.7)


@pytest.mark.parametrize("promoted", [1, 3])
def test_a_promotion_ends_a_split_for_good(service: Service, promoted: int) -> None:
    split(service, {"2": 100})
    promote(service, promoted)
    assert served(service.client) == promoted
    promote(service, 3)  # the version on which the split was set
    assert served(service.client) == 3
    assert service.client.get(TRAFFIC).json() == WHOLE | {"current": 3, "shares": {"3": 100}}


@pytest.mark.slow
def test_a_training_ends_a_split_and_an_update_starts_from_the_current_version(tmp_path: Path) -> None:
    running = Service(tmp_path).start()
    try:
        assert running.train(**NOTEBOOK, **NAMES)["version"] == 2
        split(running, {"1": 100})
        assert served(running.client) == 1
        job = running.train(instances=INPUTS[:2], targets=TARGETS[:2], mode="update", promote="always", **NAMES)
        assert job["version"] == 3
        assert running.client.get("/models/crop-yield/versions/3").json()["parent"] == 2
        assert served(running.client) == 3
        assert running.client.get(TRAFFIC).json()["shares"] == {"3": 100}
    finally:
        running.stop()


def test_a_split_and_its_counts_survive_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.monitoring.monitor.STOP_SECONDS", MAX_SECONDS)  # for the last write on a busy machine
    registry = FolderPublisher(copy_models(tmp_path))
    first = registry.version("crop-yield", 1)
    registry.publish(replace(first.card, parent=None, upload=None), first.model, promote=True)
    running = ThreadedService(tmp_path).start()
    split(running, {"1": 100})
    for _ in range(2):
        served(running.client)
    three = {"instances": INPUTS[:3]}
    assert running.client.post("/predict", json=three).json()["version"] == 1
    before = running.client.get(TRAFFIC).json()
    assert before["answered"] == {"1": {"requests": 3, "rows": 5}}
    running.stop()
    running.start()
    try:
        assert running.client.get(TRAFFIC).json() == before
        assert served(running.client) == 1
        assert running.client.get(TRAFFIC).json()["answered"] == {"1": {"requests": 4, "rows": 6}}
    finally:
        running.stop()


def test_the_differences_of_a_shadow_are_summarised_and_its_predictions_are_never_returned(service: Service) -> None:
    client = service.client
    plain = client.post("/predict", json={"instances": INPUTS})
    newest = publish_yields(service.models, more_apples=10, promote=False)
    assert split(service, {"shadow": newest})["shares"] == {"3": 100}
    shadowed = client.post("/predict", json={"instances": INPUTS})
    assert (shadowed.content, shadowed.headers["linserve-version"]) == (plain.content, "3")
    csv = "humidity,temp,rainfall\n44,75,63\n44,,63\n"
    assert client.post("/predict", content=csv, headers={"content-type": "text/csv"}).headers["linserve-version"] == "3"
    objects = [{"temp": 75, "rainfall": 63, "humidity": 44}]
    assert client.post("/predict", json={"instances": objects}, headers={"accept": "text/csv"}).status_code == 200

    wait_for(lambda: client.get(TRAFFIC).json()["shadow"]["compared_rows"] == 17)

    view = client.get(TRAFFIC).json()
    assert view["answered"] == {"3": {"requests": 3, "rows": 18}}
    shadow = view["shadow"]
    assert (shadow["version"], shadow["failed_rows"], shadow["skipped_rows"]) == (newest, 1, 0)
    for target, difference in (("apples", 10), ("oranges", 0)):
        found = shadow["targets"][target]
        assert found["count"] == 17
        expected = pytest.approx([difference] * 3, abs=1e-9)
        assert [found[name] for name in ("mean", "mean_absolute", "largest")] == expected
    # Its rows do not count as served by it.
    assert client.get(f"/models/crop-yield/drift?version={newest}").json()["predicted_rows"] == 0


def test_a_shadow_that_cannot_predict_changes_no_answer(service: Service) -> None:
    newest = publish_yields(service.models, features=("temp", "rainfall", "wind"), promote=False)
    split(service, {"shadow": newest})
    assert served(service.client) == 3
    wait_for(lambda: (service.client.get(TRAFFIC).json()["shadow"] or {})["failed_rows"] >= 1)
    assert service.client.delete(TRAFFIC).status_code == 204
    assert service.client.delete(f"/models/crop-yield/versions/{newest}").status_code == 204


def test_a_version_with_other_columns_gets_no_share_unless_forced_and_the_view_names_the_columns(
    service: Service,
) -> None:
    client = service.client
    other = publish_yields(service.models, features=("temp", "rainfall", "wind"), promote=False)
    more = publish_yields(service.models, features=("temp", "humidity", "rainfall"), promote=False)
    body = {"3": 80, str(other): 10, str(more): 10}
    refused = client.put(TRAFFIC, json=body)
    assert (refused.status_code, refused.json()["title"]) == (409, "Conflict")
    assert refused.json()["detail"] == (
        f"Version {other} would reject or misread rows that the current version 3 accepts, because of "
        '"wind", "humidity". Train a version with the same columns, or add ?force=true if no client sends such rows.'
    )
    places = [(error["pointer"], error["column"]) for error in refused.json()["errors"]]
    names = {str(other): ["wind", "humidity"], str(more): ["humidity", "rainfall"]}
    assert places == [(f"/{number}", name) for number, columns in names.items() for name in columns]
    assert client.get(TRAFFIC).json() == WHOLE | {"current": 3, "shares": {"3": 100}}
    assert served(client) == 3
    # Versions that answer nobody are not compared.
    assert split(service, {"3": 100, str(other): 0, "shadow": more})["column_differences"] == {}
    forced = client.put(TRAFFIC, params={"force": True}, json=body)
    assert forced.status_code == 200
    view = client.get(TRAFFIC).json()
    assert forced.json() == view
    found = view["column_differences"]
    assert {number: [each["column"] for each in found[number]] for number in found} == names
    assert found[str(other)][0]["detail"] == (
        f"Version {other} needs this column. The current version 3 does not have it."
    )
    promote(service, other)  # A promotion compares no columns, so that a rollback is always possible.
    assert client.get(TRAFFIC).json()["column_differences"] == {}
    assert client.post("/predict", json=OBJECTS).status_code == 422
    promote(service, 3)
    for number in (other, more):
        assert client.delete(f"/models/crop-yield/versions/{number}").status_code == 204


def test_a_stored_split_of_versions_with_other_columns_still_applies_and_is_shown_as_it_is(service: Service) -> None:
    client = service.client
    other = publish_yields(service.models, features=("temp", "rainfall", "wind"), promote=False)
    Splits(FolderStore(service.state)).set("crop-yield", Split.new(3, {other: 100}, None))
    view = client.get(TRAFFIC).json()
    assert (view["shares"], [*view["column_differences"]]) == ({str(other): 100}, [str(other)])
    refused = client.post("/predict", json=OBJECTS)
    assert refused.status_code == 422
    assert "wind" in refused.json()["detail"]
    assert client.delete(TRAFFIC).status_code == 204
    assert client.delete(f"/models/crop-yield/versions/{other}").status_code == 204


def test_a_damaged_version_gets_no_share_and_one_that_was_damaged_later_rejects_no_rows(service: Service) -> None:
    client = service.client
    other = publish_yields(service.models, features=("temp", "rainfall", "wind"), promote=False)
    (service.models / "crop-yield" / f"{other:06d}.safetensors").write_bytes(b"damaged")
    assert client.put(TRAFFIC, json={str(other): 100}).status_code == 503
    Splits(FolderStore(service.state)).set("crop-yield", Split.new(3, {other: 100}, None))
    assert client.get(TRAFFIC).json()["column_differences"] == {}
    assert served(client) == 3
    assert client.delete(TRAFFIC).status_code == 204
    assert client.delete(f"/models/crop-yield/versions/{other}").status_code == 204


def test_a_version_of_a_split_is_deleted_only_after_the_split(service: Service) -> None:
    for body in ({"1": 1, "3": 99}, {"shadow": 1}):
        split(service, body)
        refused = service.client.delete("/models/crop-yield/versions/1")
        assert (refused.status_code, refused.json()["detail"]) == (
            409,
            "Version 1 takes part in the traffic split. Change or delete the split first.",
        )
    promote(service, 2)  # which ends the split
    newest = publish_yields(service.models, promote=False)
    assert service.client.delete(f"/models/crop-yield/versions/{newest}").status_code == 204


def test_a_split_answers_only_from_the_least_version_that_a_client_accepts(service: Service) -> None:
    split(service, {"2": 50, "3": 50})
    keys = [f"client-{number}" for number in range(20)]
    assert {served(service.client, **{"linserve-sticky": key}) for key in keys} == {2, 3}
    accepted = {served(service.client, **{"linserve-sticky": key, "linserve-min-version": "3"}) for key in keys}
    assert accepted == {3}
    refused = service.client.post("/predict", json=ROW, headers={"linserve-min-version": "9"})
    assert refused.status_code == 503
    split(service, {"2": 100})
    assert served(service.client, **{"linserve-min-version": "3"}) == 3


@pytest.mark.parametrize(
    ("model", "body", "status", "text"),
    [
        ("crop-yield", {"2": 50, "3": 40}, 422, "The percentages sum to 90. Expected 100."),
        ("crop-yield", {"2": 150, "3": -50}, 422, "/2: Expected a number less than or equal to 100"),
        ("crop-yield", {"2": 50.5, "3": 49.5}, 422, "2"),
        ("crop-yield", {"2": "100"}, 422, "2"),
        ("crop-yield", {"02": 100}, 422, "numbers of versions"),
        ("crop-yield", {"<script>": 100}, 422, "numbers of versions"),
        ("crop-yield", {"x" * 300: 100}, 422, "numbers of versions"),
        ("crop-yield", {}, 422, "Expected percentages by version"),
        ("crop-yield", [], 422, "Expected an object, found an array. Send an object."),
        ("crop-yield", {"shadow": 0}, 422, "shadow"),
        ("crop-yield", {"shadow": 3}, 422, "cannot be their shadow"),
        ("crop-yield", {"2": 100, "shadow": 2}, 422, "cannot be their shadow"),
        ("crop-yield", {str(number): 0 for number in range(1, 30)} | {"30": 100}, 422, "at most 20"),
        ("crop-yield", {"99": 100}, 404, "has no version 99"),
        ("crop-yield", {"shadow": 99}, 404, "has no version 99"),
        ("none", {"1": 100}, 404, 'There is no model "none"'),
        ("..%3Cscript%3E", {"1": 100}, 404, "There is no model"),
    ],
)
def test_a_split_at_fault_is_refused(service: Service, model: str, body: object, status: int, text: str) -> None:
    answer = service.client.put(
        f"/models/{model}/traffic", content=json.dumps(body), headers={"content-type": "application/json"}
    )
    assert answer.status_code == status, answer.text
    assert text in answer.json()["detail"]
    assert "script" not in answer.json()["detail"]
    assert service.client.get(TRAFFIC).json()["shares"] == {"3": 100}


def test_versions_divide_the_buckets_in_the_order_of_their_numbers() -> None:
    shared = Split.new(3, {4: 30, 2: 70}, None)
    assert [shared.version_of(bucket) for bucket in range(BUCKETS)] == [2] * 70 + [4] * 30
    assert {shared.version_of(bucket, least=3) for bucket in range(BUCKETS)} == {4}
    assert shared.version_of(0, least=5) is None
    three = Split.new(3, {1: 50, 2: 30, 4: 10, 5: 10}, None)
    rest = Counter(three.version_of(bucket, least=2) for bucket in range(BUCKETS))
    assert [rest[number] for number in (2, 4, 5)] == [60, 20, 20]


def test_the_bucket_of_a_client_is_the_documented_one() -> None:
    assert [bucket_of("crop-yield", key) for key in ("user-8", "field-17", "127.0.0.1")] == [96, 67, 72]


def test_two_processes_set_splits_at_once_and_none_is_lost(tmp_path: Path) -> None:
    class Racing(FolderStore):
        raced = False

        def put_if_match(self, key: str, content: bytes, etag: str) -> str:
            if not self.raced:
                self.raced = True
                Splits(FolderStore(tmp_path)).set("other", Split.new(1, {1: 100}, None))
            return super().put_if_match(key, content, etag)

    splits, reader = Splits(Racing(tmp_path)), Splits(FolderStore(tmp_path))
    assert reader.get_cached("crop") is None
    first, second = (Split.new(1, {1: 100}, shadow) for shadow in (None, 2))
    splits.set("crop", first)
    assert reader.get_cached("crop") == first
    splits.set("crop", second)
    assert reader.get_cached("crop") == second
    assert reader.get_cached("other") is not None
    splits.remove("crop")
    assert reader.get_cached("crop") is None


def test_damaged_splits_count_as_none_and_are_not_overwritten_and_an_unreadable_store_leaves_the_known_ones(
    tmp_path: Path,
) -> None:
    class Lost(FolderStore):
        lost = False

        def get_if_changed(self, key: str, etag: str) -> Blob | None:
            if self.lost:
                raise StoreUnavailable("The store does not answer.")
            return super().get_if_changed(key, etag)

    store = Lost(tmp_path)
    splits = Splits(store)
    splits.set("crop", Split.new(1, {1: 100}, None))
    store.lost = True
    (tmp_path / KEY).write_bytes(b"[")
    assert splits.get_cached("crop") is not None
    with pytest.raises(StoreUnavailable):
        splits.remove("crop")
    store.lost = False
    negative = b'{"crop":{"current":1,"shares":{"1":105,"2":-5},"shadow":null,"set_at":"","identity":""}}'
    for damaged in (b"[", negative):
        (tmp_path / KEY).write_bytes(damaged)
        assert Splits(store).get_cached("crop") is None
        with pytest.raises(Conflict, match="damaged"):
            Splits(store).set("other", Split.new(2, {2: 100}, None))
        assert (tmp_path / KEY).read_bytes() == damaged
    (tmp_path / KEY).unlink()
    Splits(store).set("crop", Split.new(2, {2: 100}, None))
    assert Splits(store).get("crop") is not None


def test_a_write_that_always_finds_another_one_gives_up(tmp_path: Path) -> None:
    class Contended(FolderStore):
        def put_if_absent(self, key: str, content: bytes) -> str:
            raise BlobChanged(key, content)

    with pytest.raises(Conflict, match="Try again"):
        Splits(Contended(tmp_path)).set("crop", Split.new(1, {1: 100}, None))


def test_a_replica_sees_the_split_of_another_one_in_a_bucket_without_a_request() -> None:
    assert POLL_SECONDS < 1  # The documentation promises a second.
    store = MemoryStore()
    reader, split = Splits(store), Split.new(1, {1: 100}, None)
    with pytest.raises(LookupError):
        reader.get_cached("crop")
    assert reader.get("crop") is None
    reader.start()
    try:
        wait_for(lambda: not fails(lambda: reader.get_cached("crop")))
        Splits(store).set("crop", split)
        wait_for(lambda: reader.get_cached("crop") == split)
    finally:
        reader.stop()


def fails(call: Callable[[], object]) -> bool:
    try:
        call()
    except LookupError:
        return True
    return False


def test_the_fast_path_answers_unless_a_split_applies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINSERVE_MODELS_DIR", str(copy_models(tmp_path)))
    monkeypatch.setenv("LINSERVE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("LINSERVE_TRAINER_MODE", "external")

    async def answers(path: PredictFastPath) -> bool:
        await asyncio.sleep(0)  # The current version is looked up once per iteration of the event loop.
        return path.answer(json.dumps(ROW).encode(), b"1", time.perf_counter(), []) is not None

    async def check() -> None:
        async with application.router.lifespan_context(application) as state:
            assert state is not None
            path, splits = state["fast_paths"][b"/predict"], state["services"].splits
            assert await answers(path)
            splits.set("other", Split.new(1, {1: 100}, None))
            assert await answers(path)
            splits.set("crop-yield", Split.new(1, {1: 100}, None))
            assert not await answers(path)
            splits.set("crop-yield", Split.new(7, {1: 100}, None))  # a promotion has ended it
            assert await answers(path)
            splits.remove("crop-yield")
            assert await answers(path)

    with kept_logging():
        asyncio.run(check())
