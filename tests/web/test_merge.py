"""POST /models/{model}/merge and the download of a version for a merge."""

from typing import Any

import numpy as np
import pytest
from foreign import rewritten
from service import Service

HEADER = "age,city,n,y"
FILE = {"content-type": "application/octet-stream", "prefer": "wait=60"}


def rows_of(seed: int, count: int, cities: str) -> list[str]:
    rng = np.random.default_rng(seed)
    return [
        f"{rng.normal(40, 9)},{cities[number % len(cities)]},{rng.integers(1, 5)},{rng.normal(number % 7, 1)}"
        for number in range(count)
    ]


NORTH, SOUTH = rows_of(0, 120, "ab"), rows_of(1, 90, "bc")


def train(service: Service, model: str, rows: list[str], query: str = "") -> None:
    content = "\n".join([HEADER, *rows])
    headers = {"content-type": "text/csv", "prefer": "wait=60"}
    response = service.client.post(f"/train?model={model}&targets=y{query}", content=content, headers=headers)
    assert service.ended_job(response)["status"] == "succeeded", response.text


def exported(service: Service, model: str, query: str = "?for=merge") -> bytes:
    response = service.client.get(f"/models/{model}/versions/1/file{query}")
    assert response.status_code == 200, response.text
    return response.content


def card(service: Service, model: str) -> dict[str, Any]:
    found: dict[str, Any] = service.client.get(f"/models/{model}").json()
    return found


@pytest.fixture(scope="module")
def sites(service: Service) -> tuple[bytes, bytes]:
    """The files of a northern and a southern site."""
    train(service, "site-north", NORTH)
    train(service, "site-south", SOUTH)
    train(service, "site-both", NORTH + SOUTH)
    return exported(service, "site-north"), exported(service, "site-south")


def assert_all_rows(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["rows"] == expected["rows"]
    assert found["coefficients"]["y"] == pytest.approx(expected["coefficients"]["y"], rel=1e-9)
    assert found["standard_errors"]["y"] == pytest.approx(expected["standard_errors"]["y"], rel=1e-9)
    assert found["metrics"]["mse"] == pytest.approx(expected["metrics"]["mse"], rel=1e-12)


def test_a_merge_is_a_job_that_publishes_the_model_of_all_rows(service: Service, sites: tuple[bytes, bytes]) -> None:
    train(service, "grown", NORTH)
    headers = {**FILE, "idempotency-key": "grown-1", "content-type": "application/vnd.linserve.version"}

    response = service.client.post("/models/grown/merge", content=sites[1], headers=headers)
    again = service.client.post("/models/grown/merge", content=sites[1], headers=headers)

    job = service.ended_job(response)
    assert (job["status"], job["model"], job["version"]) == ("succeeded", "grown", 2)
    assert response.headers["location"] == f"/jobs/{job['id']}"
    assert again.json()["id"] == job["id"]
    found = card(service, "grown")
    assert_all_rows(found, card(service, "site-both"))
    assert (found["version"], found["parent"], found["mode"]) == (2, 1, "update")


def test_the_ranges_of_a_merged_version_are_withheld_with_a_reason(
    service: Service, sites: tuple[bytes, bytes]
) -> None:
    merged = service.client.post("/models/ranges/merge", content=sites[0], headers=FILE)
    assert service.ended_job(merged)["status"] == "succeeded"

    found = card(service, "ranges")
    row = {"age": 1e6, "city": "a", "n": 2}
    result = service.client.post("/models/ranges/predict", json={"instances": [row], "extrapolation": True}).json()

    assert found["ranges"] == {"age": None, "city[b]": [0, 1], "n": None}
    assert "ranges.age" in found["unavailable"]
    assert result["extrapolation"][0]["outside"] == []
    assert "not known" in result["unavailable"]["extrapolation.outside"]


def test_a_form_with_several_files_makes_a_model_and_a_forget_takes_one_out(
    service: Service, sites: tuple[bytes, bytes]
) -> None:
    files = [("file", (f"{number}.safetensors", content)) for number, content in enumerate(sites)]

    made = service.client.post("/models/formed/merge", files=files, headers={"prefer": "wait=60"})

    assert service.ended_job(made)["status"] == "succeeded", made.text
    assert_all_rows(card(service, "formed"), card(service, "site-both"))
    taken = service.client.post("/models/formed/merge?mode=forget", content=sites[1], headers=FILE)
    assert service.ended_job(taken)["status"] == "succeeded", taken.text
    found, expected = card(service, "formed"), card(service, "site-north")
    assert found["rows"] == expected["rows"]
    assert found["coefficients"]["y"]["city[b]"] == pytest.approx(expected["coefficients"]["y"]["city[b]"], rel=1e-9)


def test_counted_rows_are_merged_with_counted_rows_only(service: Service, sites: tuple[bytes, bytes]) -> None:
    weights = "&weight=n&weight_kind=frequency"
    for model, rows in (("counted", NORTH), ("counted-too", SOUTH), ("counted-both", NORTH + SOUTH)):
        train(service, model, rows, weights)

    merged = service.client.post("/models/counted/merge", content=exported(service, "counted-too"), headers=FILE)
    refused = service.client.post("/models/site-north/merge", content=exported(service, "counted-too"), headers=FILE)

    assert service.ended_job(merged)["status"] == "succeeded", merged.text
    assert_all_rows(card(service, "counted"), card(service, "counted-both"))
    assert refused.status_code == 422


def test_a_version_of_few_rows_is_not_exported_for_a_merge(service: Service) -> None:
    train(service, "few", NORTH[:15])

    response = service.client.get("/models/few/versions/1/file?for=merge")
    whole = exported(service, "few", "")
    received = service.client.post("/models/few/merge", content=whole, headers=FILE)

    assert (response.status_code, received.status_code) == (409, 422)
    assert "15 row(s)" in response.json()["detail"]
    assert "15 row(s)" in received.json()["detail"]
    assert service.client.get("/models/few/versions/1/file?for=fun").status_code == 422


def test_a_download_for_a_merge_has_a_tag_of_its_own(service: Service, sites: tuple[bytes, bytes]) -> None:
    first = service.client.get("/models/site-north/versions/1/file?for=merge")
    whole = service.client.get("/models/site-north/versions/1/file")

    again = service.client.get(
        "/models/site-north/versions/1/file?for=merge", headers={"if-none-match": first.headers["etag"]}
    )

    assert again.status_code == 304
    assert first.headers["etag"] != whole.headers["etag"]
    assert sorted(first.content) == sorted(sites[0])  # the metadata are in any order


MERGE = "/models/site-north/merge"
BODIES: dict[str, tuple[Any, int, str]] = {
    "no content type": ({"headers": {"content-type": ""}}, 415, "Content-Type has to be"),
    "CSV": ({"headers": {"content-type": "text/csv"}}, 415, "Content-Type has to be"),
    "nothing": ({"content": b""}, 422, "The body is empty"),
    "a table": ({"content": b"a,b\n1,2\n" * 9}, 422, "File 1 is truncated, or not a version"),
    "too much": ({"content": bytes(2_000_001)}, 413, "longer than the limit"),
    "an unknown option": ({"params": {"folds": 5}}, 422, "no such option"),
    "a share of a merge": ({"params": {"share": 0.5}}, 422, "Only mode forget"),
    "half a form": ({"headers": {"content-type": "multipart/form-data; boundary=x"}, "content": b"--x"}, 400, "ended"),
    "a form with another part": ({"files": {"rows": b"x"}}, 422, "another name than `file`"),
    "a wrong name of a model": ({"url": "/models/North/merge"}, 422, "A model's name has"),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_a_wrong_request_gets_a_problem(service: Service, sites: tuple[bytes, bytes], name: str) -> None:
    changes, status, reason = BODIES[name]
    request: dict[str, Any] = {"url": MERGE, "content": sites[1], "headers": FILE, **changes}
    if "files" in changes:
        del request["content"]
        request["headers"] = changes.get("headers", {})

    response = service.client.post(**request)

    assert response.status_code == status, response.text
    assert reason in response.json()["detail"]


def test_a_file_that_lies_is_refused_before_a_job_is_recorded(service: Service, sites: tuple[bytes, bytes]) -> None:
    newest = service.client.get("/jobs/latest").json()["id"]
    content = rewritten(sites[1], lambda card, _: card.update(rows=2**52))

    response = service.client.post(MERGE, content=content, headers=FILE)

    assert response.status_code == 422
    assert "File 1 has statistics that no rows have" in response.json()["detail"]
    assert service.client.get("/jobs/latest").json()["id"] == newest
