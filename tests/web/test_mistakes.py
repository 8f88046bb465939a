"""Natural mistakes. The response says what was received, what was expected, and what to do."""

import json
import re
from typing import Any

import pytest
from service import Service
from web.mistakes import (
    CSV,
    FEATURES,
    JSON,
    MARK,
    MISTAKES,
    NDJSON,
    TARGETS,
    Mistake,
    X,
    Y,
    body,
    lines,
    objects,
    table,
)

MAX_DETAILS = 20
MAX_ANSWER_BYTES = 8000
UNSUPPORTED = 415


def problem_from_error(service: Service, mistake: Mistake) -> dict[str, Any]:
    """Return the problem in the response, or in the job."""
    headers = {**(JSON if mistake.headers is None else mistake.headers), "prefer": "wait=60"}
    answer = service.client.request(mistake.method, mistake.path, content=mistake.content, headers=headers)
    assert len(answer.content) < MAX_ANSWER_BYTES
    assert MARK not in answer.text
    is_late = answer.status_code == 202  # The job ended after the wait.
    found: dict[str, Any] = service.ended_job(answer) if is_late else answer.json()
    return found["error"] if isinstance(found.get("error"), dict) else found


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.name for mistake in MISTAKES])
def test_the_answer_to_a_mistake_says_what_was_received_and_expected_and_what_to_do(
    service: Service, mistake: Mistake
) -> None:
    problem = problem_from_error(service, mistake)

    errors = problem.get("errors", [])
    said = " ".join([problem["detail"], *(error["detail"] for error in errors)])
    received, expected, remedy = mistake.says
    for part in (received, expected, remedy):
        assert part, mistake
        assert part.lower() in said.lower(), problem
    assert problem["status"] == mistake.status
    assert problem["detail"][-1] in ".?" or problem["status"] == UNSUPPORTED
    if mistake.place is not None:
        assert any(mistake.place.items() <= error.items() for error in errors), problem
    if mistake.places is not None:
        assert len(errors) == mistake.places, problem


def test_there_are_at_least_39_kinds_of_mistakes_and_those_of_rows_are_made_at_both_paths() -> None:
    kinds = {mistake.name.removesuffix(" /predict").removesuffix(" /train") for mistake in MISTAKES}
    made = {mistake.name for mistake in MISTAKES}
    assert len(kinds) >= 39
    assert sum(f"{kind} /predict" in made and f"{kind} /train" in made for kind in kinds) >= 39


def test_the_line_to_paste_sends_the_file_to_the_same_address(service: Service) -> None:
    path = "/train?targets=apples,oranges&model=pasted"
    form = {"content-type": "application/x-www-form-urlencoded"}
    refused = service.client.post(path, content=table(FEATURES), headers=form)

    line = re.search(r"curl --data-binary @FILE -H 'Content-Type: (.*)' '(.*)'$", refused.json()["detail"])
    assert line is not None
    media_type, url = line.groups()
    assert url == f"{service.url}{path}"
    columns = [*FEATURES, *TARGETS]
    sent = service.client.post(url, content=table(columns), headers={"content-type": media_type, "prefer": "wait=60"})
    assert service.ended_job(sent)["status"] == "succeeded"


@pytest.mark.parametrize("path", ["/predict", "/train"])
def test_a_file_with_faults_in_thirty_columns_has_twenty_of_them_answered(service: Service, path: str) -> None:
    names = [f"x{index}" for index in range(30)]
    if path == "/train":
        header, query = [*names, "y"], "?targets=y&model=thirty"
        content = ",".join(header) + "\n" + "".join(",".join([cell] * 30) + ",1\n" for cell in "x12")
    else:
        service.train(
            model="thirty-features", instances=[[1] * 30], targets=[1], feature_names=names, target_names=["y"]
        )
        path, query = "/models/thirty-features/predict", ""
        content = ",".join(names) + "\n" + ",".join(["x"] * 30) + "\n"
    problem = problem_from_error(service, Mistake("thirty", content, (), headers=CSV, path=path + query))

    assert [error["column"] for error in problem["errors"]] == names[:MAX_DETAILS]
    assert {error["row"] for error in problem["errors"]} == {2}


def test_a_long_name_is_cut_and_an_invisible_one_escaped(service: Service) -> None:
    name = "\u202e" + "n" * 200
    content = table(FEATURES, names={"temp": name})
    problem = problem_from_error(service, Mistake("long", content, (), headers=CSV))

    assert '"\\u202e' + "n" * 99 + '..."' in problem["detail"]
    assert "\u202e" not in json.dumps(problem, ensure_ascii=False)


@pytest.mark.parametrize(
    ("headers", "content"),
    [
        (JSON, "\ufeff" + body(FEATURES)),
        (CSV, "\ufeff" + table(FEATURES)),
        (NDJSON, "\ufeff" + lines(FEATURES, objects(FEATURES))),
    ],
    ids=["JSON", "CSV", "NDJSON"],
)
def test_a_byte_order_mark_changes_no_prediction(service: Service, headers: dict[str, str], content: str) -> None:
    path = "/models/crop-yield/versions/1/predict"
    plain = service.client.post(path, content=content.removeprefix("\ufeff"), headers=headers)
    marked = service.client.post(path, content=content, headers=headers)

    assert plain.status_code == marked.status_code == 200
    assert marked.content == plain.content


@pytest.mark.parametrize("form", ["json", "csv", "ndjson"])
def test_a_byte_order_mark_changes_no_training(service: Service, form: str) -> None:
    columns = [*FEATURES, *TARGETS]
    names = {"feature_names": FEATURES, "target_names": TARGETS}
    content, headers, path = {
        "json": (body(columns, model="marked", **names), JSON, "/train"),
        "csv": (table(columns), CSV, "/train?targets=apples,oranges&model=marked"),
        "ndjson": (lines(columns, objects(columns)), NDJSON, "/train?targets=apples,oranges&model=marked"),
    }[form]
    answer = service.client.post(path, content="\ufeff" + content, headers={**headers, "prefer": "wait=60"})

    assert service.ended_job(answer)["status"] == "succeeded", answer.text
    assert service.client.get("/models/marked").json()["features"] == FEATURES


def test_a_flat_list_of_all_features_is_one_row(service: Service) -> None:
    path = "/models/crop-yield/versions/1/predict"
    rows = service.client.post(path, json={"instances": [X[0]]}).json()
    assert service.client.post(path, json={"instances": X[0]}).json() == rows
    as_table = service.client.post(path, json={"instances": X[0]}, headers={"accept": "text/csv"})
    assert as_table.text.count("\n") == 2
    with_interval = service.client.post(path, json={"instances": X[0], "interval": 0.9}).json()
    assert len(with_interval["intervals"]) == 1


def test_flat_targets_are_those_of_one_name_for_each_row(service: Service) -> None:
    names: dict[str, Any] = {"model": "flat", "feature_names": FEATURES, "target_names": ["y"]}
    flat = service.train(**names, instances=X, targets=[y[0] for y in Y])
    nested = service.train(**names, instances=X, targets=[[y[0]] for y in Y])
    assert flat["status"] == nested["status"] == "succeeded"
    assert flat["metrics"] == nested["metrics"]


def test_flat_instances_of_one_feature_are_a_row_each(service: Service) -> None:
    job = service.train(
        model="flat-line", feature_names=["x"], target_names=["y"], instances=[1, 2, 3], targets=[1, 2, 3.1]
    )
    assert job["status"] == "succeeded"
    assert job["progress"]["rows"] == 3
    answer = service.client.post("/models/flat-line/predict", json={"instances": [1, 2]})
    assert len(answer.json()["predictions"]) == 2


def test_one_row_may_be_trained_from_two_flat_lists(service: Service) -> None:
    names: dict[str, Any] = {"feature_names": FEATURES, "target_names": TARGETS}
    job = service.train(model="flat-row", instances=X[0], targets=Y[0], **names)
    assert (job["status"], job["progress"]["rows"]) == ("succeeded", 1)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("1,2,3,5\n", "1 row(s) are too few. Send at least 4"),
        ("1,2,3,5\n2,3,5,5\n5,3,1,5\n9,3,2,5\n1,1,1,5\n", 'The target "y" is constant in these rows'),
    ],
    ids=["too few rows", "a constant target"],
)
def test_a_training_that_can_say_little_warns_and_says_what_to_send(service: Service, rows: str, says: str) -> None:
    answer = service.client.post(
        "/train?targets=y&model=says-little", content="a,b,c,y\n" + rows, headers={**CSV, "prefer": "wait=60"}
    )
    (warning,) = [warning for warning in service.ended_job(answer)["warnings"] if says in warning]
    assert "end " in warning  # Send, or send
