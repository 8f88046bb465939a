"""POST /inspect: what a training would find in a file."""

import json
from typing import Any

import httpx
import pytest
from service import Service

CSV = "text/csv"
ROWS = [
    (
        f"n{row}",
        ["rome", "oslo", "lima"][row % 3],
        f"2020-01-{row % 28 + 1:02d}",
        str(20 + row % 7),
        str(row * row % 17),
    )
    for row in range(40)
]
TABLE = "name,city,day,age,y\n" + "".join(",".join(row) + "\n" for row in ROWS)
GROUPED_ROWS = [("1.000,5", "2.004,5"), ("2.000,5", "4.003"), ("3.100,5", "6.203"), ("4.500", "9.004,5")]
TRAINING = {"content-type": CSV, "prefer": "wait=60"}
GAPS = TABLE.replace(",24,", ",NA,")


def inspect(service: Service, body: str, content_type: str = CSV, **query: str) -> httpx.Response:
    return service.client.post("/inspect", params=query, content=body, headers={"content-type": content_type})


def by_name(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {column["name"]: column for column in answer["columns"]}


def test_each_column_is_shown_with_its_kind_gaps_levels_and_range(service: Service) -> None:
    answer = inspect(service, GAPS, targets="y").json()
    columns = by_name(answer)
    assert {name: column["kind"] for name, column in columns.items()} == {
        "city": "category",
        "day": "date",
        "age": "number",
        "y": "number",
    }
    assert columns["city"]["levels"] == {"lima": 13, "oslo": 13, "rome": 14}
    assert (columns["city"]["reference"], columns["city"]["level_count"], columns["city"]["design_columns"]) == (
        "lima",
        3,
        2,
    )
    assert (columns["age"]["minimum"], columns["age"]["maximum"], columns["age"]["gaps"]) == (20.0, 26.0, 6)
    assert (columns["day"]["minimum"], columns["day"]["unit"]) == (18262.0, "days since 1970-01-01 UTC")
    assert (columns["y"]["role"], columns["y"]["design_columns"]) == ("target", 0)
    assert answer["left_out"] == [{"name": "name", "reason": "identifier"}]
    assert (answer["rows"], answer["design_columns"], answer["model"]) == (40, 4, None)
    assert any("name" in warning for warning in answer["warnings"])


def test_targets_are_optional_and_nothing_is_stored(service: Service) -> None:
    def stored() -> tuple[Any, list[str]]:
        jobs = service.client.get("/jobs").json()["items"]
        return service.client.get("/models").json(), [job["id"] for job in jobs]

    service.finish_jobs()  # Those of other tests.
    before = stored()
    answer = inspect(service, TABLE).json()
    assert {column["role"] for column in answer["columns"]} == {"feature"}
    assert stored() == before


def test_a_file_is_compared_with_the_schema_of_a_model(service: Service) -> None:
    answer = service.client.post(
        "/train",
        params={"model": "cities", "targets": "y"},
        content=TABLE,
        headers={"content-type": CSV, "prefer": "wait=60"},
    )
    trained = service.ended_job(answer)
    assert trained["status"] == "succeeded", trained
    same = inspect(service, TABLE, model="cities").json()
    assert (same["differences"], same["version"]) == ([], 1)
    assert by_name(same)["y"]["role"] == "target"
    bonn = inspect(service, TABLE.replace("oslo", "bonn"), model="cities").json()
    assert bonn["differences"] == [
        'The column "city" has new levels: "bonn".',
        'The column "city" lacks levels: "oslo".',
    ]
    renamed = inspect(service, TABLE.replace("age,y", "years,y"), model="cities").json()
    assert any("Missing feature" in difference for difference in renamed["differences"])
    words = inspect(service, TABLE.replace(",20,", ",twenty,"), model="cities", categories="age").json()
    assert words["differences"]


GROUPED = "size;price\n" + "".join(f"{size};{price}\n" for size, price in GROUPED_ROWS)


def test_every_column_is_read_with_the_signs_of_the_model(service: Service) -> None:
    options = {"model": "grouped", "targets": "price", "thousands": "."}
    answer = service.client.post("/train", params=options, content=GROUPED, headers=TRAINING)
    assert service.ended_job(answer)["status"] == "succeeded"
    columns = by_name(inspect(service, "size;price\n1.500;3.003\n2.500;5.003\n", model="grouped").json())
    ranges = {name: (column["minimum"], column["maximum"]) for name, column in columns.items()}
    assert ranges == {"size": (1500, 2500), "price": (3003, 5003)}


def test_the_target_of_fewer_features_is_read_with_the_signs_of_the_model(service: Service) -> None:
    rows = "id;" + GROUPED.replace("\n", "\n1,5;", len(GROUPED_ROWS))
    options = {"model": "grouped-twice", "targets": "price", "thousands": "."}
    answer = service.client.post("/train", params=options, content=rows, headers=TRAINING)
    assert service.ended_job(answer)["status"] == "succeeded"
    fewer = {"model": "grouped-twice", "targets": "price", "features": "size"}
    again = "size;price\n1.500;3.003\n2.500;5.003\n3.500;7.003\n"
    job = service.ended_job(service.client.post("/train", params=fewer, content=again, headers=TRAINING))
    assert job["status"] == "succeeded", job
    answer = service.client.post("/models/grouped-twice/predict", json={"instances": [[4500]]})
    assert answer.json()["predictions"] == [[pytest.approx(9003)]]


@pytest.mark.parametrize(
    ("body", "kinds"),
    [
        (
            [{"city": "rome", "x": 1, "y": 2}, {"city": "oslo", "x": 3, "y": 3}, {"city": "rome", "x": None, "y": 5}],
            True,
        ),
        ({"instances": [{"city": "rome", "x": 1}, {"city": "oslo", "x": 3}, {"city": "rome", "x": 2}]}, False),
    ],
)
def test_rows_in_json_are_inspected(service: Service, body: Any, kinds: bool) -> None:
    answer = inspect(service, json.dumps(body), "application/json").json()
    assert by_name(answer)["city"]["levels"] == {"oslo": 1, "rome": 2}
    assert by_name(answer)["x"]["gaps"] == int(kinds)


def test_faults_are_reported_as_a_training_would(service: Service) -> None:
    ambiguous = inspect(service, "d,y\n03/04/2020,1\n04/05/2020,2\n")
    assert ambiguous.status_code == 422
    assert "dates=" in ambiguous.json()["detail"]
    assert inspect(service, TABLE, model="no-such-model").status_code == 404
    assert inspect(service, TABLE, targets="nope").status_code == 422
    assert inspect(service, TABLE, missing="mean").status_code == 422


@pytest.mark.parametrize("name", ["intercept", "tab\tname", "n" * 129])
def test_names_that_a_training_refuses_are_refused(service: Service, name: str) -> None:
    answers = [
        service.client.post(path, content=f'"{name}",y\n1,2\n3,5\n', headers={"content-type": CSV}, params=query)
        for path, query in (("/inspect", {"targets": "y"}), ("/train", {"targets": "y", "model": "names"}))
    ]
    assert [answer.status_code for answer in answers] == [422, 422]
    assert answers[0].json()["errors"] == answers[1].json()["errors"]


def test_a_file_of_too_many_columns_is_refused_before_its_rows_are_read(service: Service) -> None:
    wide = ",".join(f"c{index}" for index in range(5_000)) + "\n" + ("1," * 4_999 + "1\n") * 3
    answer = inspect(service, wide)
    assert answer.status_code == 422
    assert "At most 2000 features" in answer.json()["detail"]


def test_the_prefilled_examples_can_be_inspected(service: Service) -> None:
    document = service.client.get("/openapi.json").json()
    content = document["paths"]["/inspect"]["post"]["requestBody"]["content"]
    bodies = [json.dumps(example["value"]) for example in content["application/json"]["examples"].values()]
    assert len(bodies) > 1
    for body in bodies:
        assert inspect(service, body, "application/json").status_code == 200
    assert inspect(service, content[CSV]["example"]).status_code == 200
