"""Predict, train and wait with the client that openapi-python-client makes."""

import json
import sys

from linserve_client import Client
from linserve_client.api.jobs import get_job
from linserve_client.api.predict import predict, predict_with_model
from linserve_client.api.train import train
from linserve_client.models import (
    ExactOptions,
    GradientDescentOptions,
    JobView,
    NamedRow,
    PredictRequest,
    PredictResponse,
    Problem,
    StartOptions,
    TrainRequest,
)
from linserve_client.types import UNSET, Unset

client = Client(base_url=sys.argv[1])


def ended(job: JobView) -> JobView:
    while job.status in ("queued", "running"):
        found = get_job.sync(job.id, client=client)
        assert isinstance(found, JobView)
        job = found
    return job


def trained(solver: ExactOptions | GradientDescentOptions | Unset = UNSET, prefer: str | Unset = UNSET) -> JobView:
    body = TrainRequest(
        model="python",
        instances=[[1], [2], [3], [4]],
        targets=[[3], [5], [7], [9]],
        feature_names=["x"],
        target_names=["y"],
        solver=solver,
    )
    job = train.sync(client=client, body=body, prefer=prefer)
    assert isinstance(job, JobView)
    return ended(job)


def predictions(answer: PredictResponse | Problem | None) -> list[object]:
    assert isinstance(answer, PredictResponse)
    return [row.to_dict() if isinstance(row, NamedRow) else row for row in answer.predictions]


row = NamedRow.from_dict({"temp": 75, "rainfall": 63, "humidity": 44})
shipped = predict.sync(client=client, body=PredictRequest(instances=[row], interval=0.95))
start = StartOptions(weights=[[0]], intercept=[0])
jobs = [
    trained(GradientDescentOptions(kind="gradient_descent", epochs=2, start=start), "wait=30"),
    trained(ExactOptions(l2=0.5)),
    trained(),
]
own = predict_with_model.sync("python", client=client, body=PredictRequest(instances=[[10]]))
refused = predict.sync(client=client, body=PredictRequest(instances=[[1]]))
assert isinstance(refused, Problem)
print(
    json.dumps(
        {
            "shipped": predictions(shipped),
            "jobs": [(job.status, job.version) for job in jobs],
            "own": predictions(own),
            "refused": refused.title,
        }
    )
)
