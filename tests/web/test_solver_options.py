"""The kind of solver: exact unless it is given, in JSON and in a query."""

from typing import Any

import pytest
from service import INPUTS, NOTEBOOK, TARGETS, Service

NAMES: dict[str, Any] = {"feature_names": ["temp", "rainfall", "humidity"], "target_names": ["apples", "oranges"]}
MODEL = "solver-kinds"
CSV = "temp,rainfall,humidity,apples,oranges\n" + "".join(
    ",".join(map(str, x + y)) + "\n" for x, y in zip(INPUTS, TARGETS, strict=True)
)


def posted(service: Service, solver: object) -> dict[str, Any]:
    """Return the answer to a training with this solver."""
    body = {**NOTEBOOK, "solver": solver}
    answer: dict[str, Any] = service.client.post("/train", json=body).json()
    return answer


def uploaded(service: Service, **options: float) -> dict[str, Any]:
    """Return the job of a training from a file with these options in the query, once it has ended, or the problem."""
    query: dict[str, str | float] = {"model": MODEL, "targets": "apples,oranges", **options}
    headers = {"Content-Type": "text/csv", "Prefer": "wait=60"}
    answer = service.client.post("/train", params=query, content=CSV, headers=headers)
    if answer.is_success:
        return service.ended_job(answer)
    problem: dict[str, Any] = answer.json()
    return problem


@pytest.mark.parametrize("solver", [{}, {"l2": 0.5}, {"kind": "exact", "l2": 0.5}])
def test_a_solver_without_a_kind_is_exact(service: Service, solver: dict[str, Any]) -> None:
    job = service.train(**NOTEBOOK, **NAMES, model=MODEL, solver=solver)
    card = service.client.get(f"/models/{MODEL}/versions/{job['version']}").json()
    assert card["solver"] == {"kind": "exact", "fit_intercept": True, "device": "cpu", "l2": solver.get("l2", 0.0)}


def test_a_query_without_a_solver_is_exact(service: Service) -> None:
    job = uploaded(service, l2=0.5)
    card = service.client.get(f"/models/{MODEL}/versions/{job['version']}").json()
    assert card["solver"] == {"kind": "exact", "fit_intercept": True, "device": "cpu", "l2": 0.5}


@pytest.mark.parametrize(
    ("solver", "chosen", "wanted"),
    [
        ({"epochs": 5}, "exact", "gradient_descent"),
        ({"kind": "exact", "epochs": 5}, "exact", "gradient_descent"),
        ({"kind": "gradient_descent", "l2": 5}, "gradient_descent", "exact"),
    ],
)
def test_an_option_of_the_other_kind_is_named_with_its_kind(
    service: Service, solver: dict[str, Any], chosen: str, wanted: str
) -> None:
    option = next(name for name in solver if name != "kind")
    problem = posted(service, solver)
    assert problem["errors"] == [
        {
            "pointer": f"/solver/{option}",
            "detail": f"`{option}` is an option of the solver {wanted}, and this solver is {chosen}. "
            f'Choose {wanted} (in JSON `"kind": "{wanted}"`, in a query `solver={wanted}`), or leave `{option}` out.',
        }
    ]


def test_an_option_of_the_other_kind_is_named_with_its_kind_in_a_query(service: Service) -> None:
    (place,) = uploaded(service, epochs=5)["errors"]
    assert place["parameter"] == "epochs"
    assert place["detail"].startswith(
        "`epochs` is an option of the solver gradient_descent, and this solver is exact. "
    )


def test_all_options_of_another_solver_are_reported_together(service: Service) -> None:
    problem = posted(service, {"epochs": 5, "momentum": 0.5, "nonsense": 1, "l2": -1})
    assert {place["pointer"]: place["detail"].partition(",")[0] for place in problem["errors"]} == {
        "/solver/epochs": "`epochs` is an option of the solver gradient_descent",
        "/solver/momentum": "`momentum` is an option of the solver gradient_descent",
        "/solver/nonsense": 'There is no such option: "nonsense". Expected batch_size',
        "/solver/l2": "Expected a number greater than or equal to 0",
    }


@pytest.mark.parametrize("solver", ["exact", 5, [], {"kind": None}, {"kind": 5}, {"kind": ["exact"]}, {"kind": "nn"}])
def test_an_invalid_solver_is_refused_with_the_kinds_of_solvers(service: Service, solver: object) -> None:
    (place,) = posted(service, solver)["errors"]
    assert place == {
        "pointer": "/solver",
        "detail": 'Expected one of "exact", "gradient_descent" as `kind` of an object, '
        'such as {"kind": "exact"}. Without `kind` it is exact.',
    }
