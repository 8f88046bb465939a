"""Linear regression step by step: in plain PyTorch, and the same steps through the service.

Start the service with `make run`, then run `python examples/notebook.py [URL]`. Each line shows a number twice: from
PyTorch in this process, and from the service. Numbers are in float64, so the two agree to about 12 digits.
"""

import csv
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

FEATURES, TARGETS = ["temp", "rainfall", "humidity"], ["apples", "oranges"]
LEARNING_RATE = 1e-5
NEW_REGION = [75.0, 63.0, 44.0]


class Comparison(NamedTuple):
    label: str
    torch: float
    service: float


def read_table() -> tuple[Tensor, Tensor]:
    """Return the 15 regions: temperature, rainfall and humidity, and the yields of apples and oranges."""
    path = Path(__file__).parents[1] / "models" / "crop-yield" / "yields.csv"
    with path.open() as file:
        rows = list(csv.DictReader(file))
    columns = [[[float(row[name]) for name in names] for row in rows] for names in (FEATURES, TARGETS)]
    return torch.tensor(columns[0], dtype=torch.float64), torch.tensor(columns[1], dtype=torch.float64)


def train(client: httpx.Client, x: Tensor, y: Tensor, solver: dict[str, Any]) -> dict[str, Any]:
    """Train a version of the model "steps" through the service, and return the job once it has ended."""
    body = {
        "model": "steps",
        "feature_names": FEATURES,
        "target_names": TARGETS,
        "instances": x.tolist(),
        "targets": y.tolist(),
        "solver": solver,
    }
    response = client.post("/train", json=body, headers={"Prefer": "wait=30"}, timeout=60)
    job: dict[str, Any] = response.raise_for_status().json()
    while job["finished_at"] is None:  # on a busy machine
        time.sleep(1)
        job = client.get(f"/jobs/{job['id']}").raise_for_status().json()
    assert job["status"] == "succeeded", job
    return job


def predict(client: httpx.Client, row: list[float]) -> list[float]:
    response = client.post("/models/steps/predict", json={"instances": [row]})
    predictions: list[float] = response.raise_for_status().json()["predictions"][0]
    return predictions


def from_scratch(client: httpx.Client) -> Iterator[Comparison]:
    """Descend from random weights on the first five regions, with tensors and autograd only."""
    x, y = read_table()
    x, y = x[:5], y[:5]

    # The notebook's random weights. A prediction is x @ w.T + b, and the loss is the mean squared error.
    w = torch.tensor([[0.9887, -0.6828, -0.3289], [-0.0954, -0.1854, -0.6360]], dtype=torch.float64)
    b = torch.tensor([1.0996, 0.1550], dtype=torch.float64)
    start = {"weights": w.tolist(), "intercept": b.tolist()}
    w.requires_grad_()
    b.requires_grad_()

    losses = []
    for epoch in range(103):
        loss = ((x @ w.T + b - y) ** 2).mean()
        losses.append(loss.item())
        if epoch == 102:
            break
        loss.backward()
        with torch.no_grad():
            assert w.grad is not None
            assert b.grad is not None
            w -= LEARNING_RATE * w.grad
            b -= LEARNING_RATE * b.grad
            w.grad.zero_()
            b.grad.zero_()

    # Two steps from the same weights, then a hundred more from the version that the first job published.
    options = {"kind": "gradient_descent", "learning_rate": LEARNING_RATE}
    curve = dict(train(client, x, y, {**options, "epochs": 2, "start": start})["loss_curve"])
    for epoch in range(3):
        yield Comparison(f"loss, step {epoch}", losses[epoch], curve[epoch])
    job = train(client, x, y, {**options, "epochs": 100, "start": "current"})
    yield Comparison("loss, step 102", losses[102], job["progress"]["loss"])
    for target, ours, theirs in zip(TARGETS, (w @ x[0] + b).tolist(), predict(client, x[0].tolist()), strict=True):
        yield Comparison(f"{target} of the first region", ours, theirs)


def with_torch_nn(client: httpx.Client) -> Iterator[Comparison]:
    """Descend on all 15 regions in batches of five, with TensorDataset, DataLoader, nn.Linear and optim.SGD."""
    x, y = read_table()
    loader = DataLoader(TensorDataset(x, y), batch_size=5)
    torch.manual_seed(0)
    model = nn.Linear(3, 2, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    for _ in range(100):
        for inputs, targets in loader:
            loss = functional.mse_loss(model(inputs), targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    with torch.no_grad():
        final_loss = float(functional.mse_loss(model(x), y))
        predictions = model(torch.tensor(NEW_REGION, dtype=torch.float64)).tolist()

    # The service draws the same weights from the same seed. It shuffles by default, in an order of its own.
    options = {"kind": "gradient_descent", "learning_rate": LEARNING_RATE, "epochs": 100, "batch_size": 5, "seed": 0}
    job = train(client, x, y, {**options, "shuffle": False})
    yield Comparison("loss after 100 epochs", final_loss, job["progress"]["loss"])
    for target, ours, theirs in zip(TARGETS, predictions, predict(client, NEW_REGION), strict=True):
        yield Comparison(f"{target} of a new region", ours, theirs)


def optimum(client: httpx.Client) -> Iterator[Comparison]:
    """Solve for the least-squares optimum directly, without steps."""
    x, y = read_table()
    ones = torch.ones(len(x), 1, dtype=torch.float64)
    coefficients = torch.linalg.lstsq(torch.hstack([x, ones]), y).solution
    loss = functional.mse_loss(torch.hstack([x, ones]) @ coefficients, y)
    predictions = (torch.tensor([*NEW_REGION, 1.0], dtype=torch.float64) @ coefficients).tolist()

    job = train(client, x, y, {"kind": "exact"})
    yield Comparison("loss of the optimum", float(loss), job["metrics"]["mse"])
    for target, ours, theirs in zip(TARGETS, predictions, predict(client, NEW_REGION), strict=True):
        yield Comparison(f"{target} of a new region", ours, theirs)


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
    with httpx.Client(base_url=url) as client:
        for section in (from_scratch, with_torch_nn, optimum):
            print(f"\n{section.__doc__}\n{'':28}{'PyTorch':>20}{'service':>20}")
            for label, ours, theirs in section(client):
                print(f"{label:28}{ours:20.10f}{theirs:20.10f}")


if __name__ == "__main__":
    main()
