"""Ask a service as users of KServe's client do, and print what they get as JSON."""

import asyncio
import json
import os

import numpy as np
from httpx import HTTPStatusError
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

URL = os.environ["URL"]
HEADERS = {"X-API-Key": os.environ["KEY"]}
ROWS = np.array([[73, 67, 43], [91, 88, 64]], np.float64)


def request(values, binary, **options):
    given = InferInput("input-0", list(values.shape), "FP64")
    given.set_data_from_numpy(values, binary_data=binary)
    return InferRequest("crop-yield", [given], request_id="7", **options)


async def ask():
    client = InferenceRESTClient(RESTConfig(protocol="v2"))

    async def infer(data, model="crop-yield"):
        return await client.infer(URL, data, model_name=model, headers=dict(HEADERS))

    def values(answer):
        return [[output.name, output.as_numpy().tolist()] for output in answer.outputs]

    named = {
        "inputs": [
            {"name": name, "shape": [2, 1], "datatype": "FP32", "data": ROWS[:, index].tolist()}
            for index, name in enumerate(["temp", "rainfall", "humidity"])
        ]
    }
    binary = request(ROWS, True, request_outputs=[RequestedOutput("predict", {"binary_data": True})])
    errors = []
    for data, model in ((request(ROWS, True), "nothing"), (request(ROWS[:, :2], False), "crop-yield")):
        try:
            await infer(data, model)
        except HTTPStatusError as error:
            errors.append([error.response.status_code, str(error)])
    answer = await infer(request(ROWS, False))
    return {
        "live": await client.is_server_live(URL),
        "ready": await client.is_server_ready(URL),
        "model_ready": await client.is_model_ready(URL, "crop-yield", headers=HEADERS),
        "other_ready": await client.is_model_ready(URL, "nothing", headers=HEADERS),
        "id": answer.id,
        "json": values(answer),
        "binary": values(await infer(binary)),
        "named": values(await infer(named)),
        "errors": errors,
    }


print(json.dumps(asyncio.run(ask())))
