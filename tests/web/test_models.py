import base64
import contextlib
import os
import re
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service import Service
from threaded_service import ThreadedService
from yields import publish_yields

from app.errors import InvalidInput
from app.registry.names import MODEL_NAME
from app.web.routes.models import decode_cursor, encode_cursor

CURRENT = "/models/crop-yield/current"


@pytest.fixture(scope="module")
def versioned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with three versions, the third current; tests leave it so."""
    running = ThreadedService(tmp_path_factory.mktemp("models"))
    for rows in (10, 12):
        publish_yields(running.models, rows=rows)
    running.start()
    yield running
    running.stop()


def test_the_card_of_the_current_version_is_complete(versioned: Service) -> None:
    card = versioned.client.get("/models/crop-yield").json()

    assert (card["model"], card["version"], card["current"], card["versions"]) == ("crop-yield", 3, True, [1, 2, 3])
    assert card["features"] == ["temp", "rainfall", "humidity"]
    assert card["targets"] == ["apples", "oranges"]
    assert card["rows"] == 12
    assert card["rank"] == 4
    assert card["ranges"]["temp"] == [68, 102]
    assert card["parent"] == 2
    assert card["solver"] == {"kind": "exact", "l2": 0, "fit_intercept": True, "device": "cpu"}
    for target in card["targets"]:
        for name in ("intercept", *card["features"]):
            low, high = card["confidence_intervals"][target][name]
            value = card["intercept"][target] if name == "intercept" else card["coefficients"][target][name]
            assert low < value < high
            assert card["standard_errors"][target][name] > 0
            assert 0 <= card["p_values"][target][name] <= 1


@pytest.mark.parametrize("path", ["/models/crop-yield", "/models/crop-yield/versions/2"])
def test_options_of_a_card_give_another_card_with_another_tag(versioned: Service, path: str) -> None:
    plain = versioned.client.get(path)
    tags = {plain.headers["etag"]}
    for query in ("level=0.9", "level=0.99", "include=covariance", "level=0.9&include=covariance"):
        answer = versioned.client.get(f"{path}?{query}", headers={"if-none-match": plain.headers["etag"]})
        assert answer.status_code == httpx.codes.OK
        tags.add(answer.headers["etag"])
        again = versioned.client.get(f"{path}?{query}", headers={"if-none-match": answer.headers["etag"]})
        assert again.status_code == httpx.codes.NOT_MODIFIED
    assert len(tags) == 5
    assert versioned.client.get(f"{path}?level=0.95").headers["etag"] == plain.headers["etag"]

    asked = versioned.client.get(f"{path}?level=0.9&include=covariance").json()
    assert (plain.json()["confidence_level"], asked["confidence_level"]) == (0.95, 0.9)
    assert plain.json()["unavailable"]["covariance"] == "Add include=covariance to the request."
    assert asked["covariance"]["coefficients"] == ["intercept", "temp", "rainfall", "humidity"]
    assert asked["covariance"]["matrices"]["apples"][1][1] == pytest.approx(
        asked["standard_errors"]["apples"]["temp"] ** 2
    )


@pytest.mark.parametrize("query", ["level=0", "level=1", "level=-1", "level=nan", "level=x", "include=all"])
def test_options_of_a_card_that_are_wrong_are_refused_with_their_name(versioned: Service, query: str) -> None:
    for path in ("/models/crop-yield", "/models/crop-yield/versions/1"):
        answer = versioned.client.get(f"{path}?{query}")
        assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY
        assert answer.json()["errors"][0]["parameter"] == query.partition("=")[0]


def test_a_version_that_is_not_current_is_marked_so(versioned: Service) -> None:
    card = versioned.client.get("/models/crop-yield/versions/1").json()

    assert card["current"] is False
    assert card["job"] is None


def test_models_are_listed_with_their_versions(versioned: Service) -> None:
    assert versioned.client.get("/models").json() == {
        "items": [
            {
                "model": "crop-yield",
                "current": 3,
                "note": None,
                "features": ["temp", "rainfall", "humidity"],
                "targets": ["apples", "oranges"],
                "versions": [1, 2, 3],
            }
        ],
        "next": None,
    }


def test_rolling_back_serves_the_old_version_at_once(versioned: Service) -> None:
    answer = versioned.client.put("/models/crop-yield/current", json={"version": 1})

    assert answer.status_code == httpx.codes.OK
    assert answer.json()["version"] == 1
    assert versioned.predict([75, 63, 44])["version"] == 1
    versioned.client.put("/models/crop-yield/current", json={"version": 3})
    assert versioned.predict([75, 63, 44])["version"] == 3


@pytest.fixture
def many(versioned: Service) -> Iterator[list[str]]:
    """Names of five models next to the shipped one. The third has no version that can be read."""
    names = [f"model-{letter}" for letter in "abcde"]
    for name in names:
        folder = versioned.models / name
        folder.mkdir()
        shutil.copy(versioned.models / "crop-yield" / "000001.safetensors", folder)
        (folder / "current").symlink_to("000001.safetensors")
    (versioned.models / names[2] / "000001.safetensors").write_bytes(b"damaged")
    yield names
    for name in names:
        shutil.rmtree(versioned.models / name)


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6, 200])
def test_pages_of_models_are_all_models_once_and_in_order(versioned: Service, many: list[str], limit: int) -> None:
    found: list[str] = []
    parameters: dict[str, Any] = {"limit": limit}
    pages = 1
    while True:
        page = versioned.client.get("/models", params=parameters).json()
        assert len(page["items"]) <= limit
        found += [item["model"] for item in page["items"]]
        if page["next"] is None:
            break
        parameters["next"] = page["next"]
        pages += 1
    assert found == ["crop-yield", *many[:2], *many[3:]]
    assert pages == -(-(1 + len(many)) // limit)


def test_a_page_begins_where_the_one_before_ended_although_models_came_and_went(
    versioned: Service, many: list[str]
) -> None:
    page = versioned.client.get("/models", params={"limit": 2}).json()
    (versioned.models / many[0]).rename(versioned.models / "a-model")
    following = versioned.client.get("/models", params={"limit": 2, "next": page["next"]}).json()
    (versioned.models / "a-model").rename(versioned.models / many[0])

    assert [item["model"] for item in page["items"]] == ["crop-yield", many[0]]
    assert [item["model"] for item in following["items"]] == [many[1]]  # the next one is damaged


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "next=", "next=x", "next=Li4v", "next=%ff"])
def test_a_limit_or_a_cursor_that_is_invalid_is_rejected(versioned: Service, query: str) -> None:
    assert versioned.client.get(f"/models?{query}").status_code == httpx.codes.UNPROCESSABLE_ENTITY


@settings(max_examples=100)
@given(st.from_regex(MODEL_NAME, fullmatch=True))
def test_a_cursor_names_the_last_model_of_its_page(name: str) -> None:
    assert decode_cursor(encode_cursor(name)) == name
    assert httpx.QueryParams({"next": encode_cursor(name)})["next"] == encode_cursor(name)


@settings(max_examples=100)
@given(
    st.text()
    | st.text().map(lambda text: base64.urlsafe_b64encode(text.encode(errors="replace")).decode())
    | st.binary().map(lambda noise: base64.urlsafe_b64encode(noise).decode())
)
def test_any_cursor_names_a_model_or_is_rejected(token: str) -> None:
    with contextlib.suppress(InvalidInput):
        assert re.fullmatch(MODEL_NAME, decode_cursor(token))


def promoted(service: Service, version: int, condition: str) -> int:
    answer = service.client.put(CURRENT, json={"version": version}, headers={"if-match": condition})
    return answer.status_code


@pytest.mark.parametrize("condition", ["{0}", "*", '"another", {0}', '{0} , W/"another"', "W/{0},{0}"])
def test_a_promotion_is_made_where_its_condition_holds(versioned: Service, condition: str) -> None:
    tag = versioned.client.get("/models/crop-yield").headers["etag"]

    assert promoted(versioned, 2, condition.format(tag)) == httpx.codes.OK
    assert versioned.predict([75, 63, 44])["version"] == 2
    versioned.client.put(CURRENT, json={"version": 3})


@pytest.mark.parametrize("condition", ["W/{}", '"another"', "", '"*"', 'W/{}, "another"', "{}x"])
def test_a_promotion_is_not_made_where_its_condition_does_not_hold(versioned: Service, condition: str) -> None:
    tag = versioned.client.get("/models/crop-yield").headers["etag"]

    assert promoted(versioned, 2, condition.format(tag)) == httpx.codes.PRECONDITION_FAILED
    assert versioned.predict([75, 63, 44])["version"] == 3


def test_only_one_of_two_promotions_with_the_same_tag_is_made(versioned: Service) -> None:
    for _ in range(8):
        tag = versioned.client.get("/models/crop-yield").headers["etag"]
        both = Barrier(2)

        def promote(version: int, tag: str = tag, both: Barrier = both) -> int:
            both.wait()
            return promoted(versioned, version, tag)

        with ThreadPoolExecutor(2) as pool:
            answers = dict(zip((1, 2), pool.map(promote, (1, 2)), strict=True))
        assert sorted(answers.values()) == [httpx.codes.OK, httpx.codes.PRECONDITION_FAILED]
        made = next(version for version, status in answers.items() if status == httpx.codes.OK)
        assert versioned.predict([75, 63, 44])["version"] == made
        versioned.client.put(CURRENT, json={"version": 3})


def test_a_weak_tag_is_enough_to_not_be_sent_the_same_again(versioned: Service) -> None:
    tag = versioned.client.get("/models/crop-yield").headers["etag"]
    for condition in (f"W/{tag}", f'"another", W/{tag}', "*"):
        answer = versioned.client.get("/models/crop-yield", headers={"if-none-match": condition})
        assert answer.status_code == httpx.codes.NOT_MODIFIED


def test_a_file_that_the_client_has_is_not_sent_again(versioned: Service) -> None:
    path = "/models/crop-yield/versions/2/file"
    first = versioned.client.get(path)
    assert first.content == (versioned.models / "crop-yield" / "000002.safetensors").read_bytes()
    assert first.headers["content-length"] == str(len(first.content))

    again = versioned.client.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (httpx.codes.NOT_MODIFIED, b"")
    other = versioned.client.get(path.replace("2", "1"), headers={"if-none-match": first.headers["etag"]})
    assert other.status_code == httpx.codes.OK
    head = versioned.client.head(path)
    assert (head.headers["content-length"], head.content) == (first.headers["content-length"], b"")


def test_slow_readers_of_a_large_file_hold_a_few_chunks_each(service: Service) -> None:
    path = service.models / "large-file" / "000999.safetensors"
    path.parent.mkdir()
    path.touch()
    os.truncate(path, 64 << 20)
    with service.growing_by_less_than(32 << 20), contextlib.ExitStack() as stack:
        for _ in range(8):
            reader = stack.enter_context(socket.socket())
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
            reader.connect(("127.0.0.1", httpx.URL(service.url).port or 0))
            reader.sendall(b"GET /models/large-file/versions/999/file HTTP/1.1\r\nhost: here\r\n\r\n")
            assert b"200 OK" in reader.recv(100)
        assert len(service.client.get("/models/large-file/versions/999/file").content) == 64 << 20
    path.unlink()
    path.parent.rmdir()


def test_a_link_out_of_the_models_folder_is_not_followed(versioned: Service) -> None:
    link = versioned.models / "crop-yield" / "000999.safetensors"
    link.symlink_to("/etc/passwd")
    path = "/models/crop-yield/versions/999"
    answers = [versioned.client.get(path), versioned.client.get(f"{path}/file")]
    answers.append(versioned.client.put(CURRENT, json={"version": 999}))
    link.unlink()

    for answer in answers:
        assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert "root:" not in answer.text


def test_versions_that_are_not_cached_are_unavailable_while_the_models_folder_is_gone(versioned: Service) -> None:
    row = {"instances": [[75, 63, 44]]}
    version = "/models/crop-yield/versions/1"
    versioned.client.post(f"{version}/predict", json=row)
    away = versioned.models.rename(versioned.models.with_name("away"))
    try:
        for method, path, body in (
            ("GET", "/models", None),
            ("GET", "/models/crop-yield", None),
            ("GET", version, None),
            ("GET", f"{version}/file", None),
            ("POST", f"{version}/predict", row),
            ("PUT", CURRENT, {"version": 1}),
            ("DELETE", version, None),
        ):
            answer = versioned.client.request(method, path, json=body)
            assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE, (method, path)
        assert versioned.predict([75, 63, 44])["version"] == 3
    finally:
        away.rename(versioned.models)
    assert versioned.client.get(version).status_code == httpx.codes.OK


@pytest.mark.parametrize("path", ["/models/crop-yield", "/models/crop-yield/versions/1"])
def test_a_card_that_the_client_has_is_not_sent_again_until_it_changes(versioned: Service, path: str) -> None:
    tag = versioned.client.get(path).headers["etag"]

    assert versioned.client.get(path, headers={"if-none-match": tag}).status_code == httpx.codes.NOT_MODIFIED
    versioned.client.put("/models/crop-yield/current", json={"version": 1})
    assert versioned.client.get(path, headers={"if-none-match": tag}).status_code == httpx.codes.OK
    versioned.client.put("/models/crop-yield/current", json={"version": 3})


def test_a_downloaded_file_serves_elsewhere(versioned: Service, tmp_path: Path) -> None:
    content = versioned.client.get("/models/crop-yield/versions/2/file").content
    folder = tmp_path / "models" / "crop-yield"
    folder.mkdir(parents=True)
    (folder / "000002.safetensors").write_bytes(content)
    (folder / "current").symlink_to("000002.safetensors")

    elsewhere = ThreadedService(tmp_path).start()
    try:
        there = versioned.client.post("/models/crop-yield/versions/2/predict", json={"instances": [[1, 2, 3]]})
        assert elsewhere.predict([1, 2, 3]) == there.json()
    finally:
        elsewhere.stop()


def test_a_deleted_version_is_gone_and_its_number_is_not_used_again(versioned: Service) -> None:
    number = publish_yields(versioned.models, promote=False)
    path = f"/models/crop-yield/versions/{number}"

    assert versioned.client.delete(path).status_code == httpx.codes.NO_CONTENT
    assert versioned.client.get(path).status_code == httpx.codes.NOT_FOUND
    assert versioned.client.delete(path).status_code == httpx.codes.NOT_FOUND
    assert publish_yields(versioned.models, promote=False) == number + 1


def test_a_damaged_current_file_leaves_the_version_before_it_serving(tmp_path: Path) -> None:
    service = ThreadedService(tmp_path).start()
    try:
        publish_yields(service.models)
        assert service.predict([75, 63, 44])["version"] == 2
        service.stop()
        path = service.models / "crop-yield" / "000002.safetensors"
        content = path.read_bytes()
        path.write_bytes(content[:-1])

        service.start()
        assert service.predict([75, 63, 44])["version"] == 1
        assert "000002.safetensors is truncated" in service.log.read_text()
        refused = service.client.put("/models/crop-yield/current", json={"version": 2})
        assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert service.client.get("/models/crop-yield").json()["version"] == 1

        # Every response names the served version as the current one, and it stays.
        first = service.client.get("/models/crop-yield/versions/1")
        assert (first.json()["current"], first.headers["etag"].rpartition("/")[2]) == (True, 'current"')
        for version in (1, 2):
            kept = service.client.delete(f"/models/crop-yield/versions/{version}")
            assert kept.status_code == httpx.codes.CONFLICT
        tag = service.client.get("/models/crop-yield").headers["etag"]
        assert promoted(service, 1, '"another"') == httpx.codes.PRECONDITION_FAILED
        assert promoted(service, 1, tag) == httpx.codes.OK

        path.write_bytes(content)
        (service.models / "crop-yield" / "current").unlink()
        (service.models / "crop-yield" / "current").symlink_to("000002.safetensors")
        assert service.predict([75, 63, 44])["version"] == 2  # mended, and served again without a promotion
    finally:
        service.stop()
