"""Ask a service as users of Triton's HTTP client do, and print what they get as JSON."""

import asyncio
import json
import os

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

URL = os.environ["URL"].removeprefix("http://")
ROWS = np.array([[73, 67, 43], [91, 88, 64]], np.float64)
DTYPES = ["f8", "f4", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]
FEATURES = ["temp", "rainfall", "humidity"]


def key():
    """Return new headers, because the client adds its own to the dictionary."""
    return {"X-API-Key": os.environ["KEY"]}


def tensor(name, values, binary=True, package=triton):
    given = package.InferInput(name, values.shape, np_to_triton_dtype(values.dtype))
    given.set_data_from_numpy(values, binary_data=binary)
    return given


def by_feature(dtype, binary):
    return [tensor(name, ROWS[:, [index]].astype(dtype), binary) for index, name in enumerate(FEATURES)]


def whole(client, model="crop-yield", name="predict", **options):
    return client.infer(model, [tensor("any", ROWS)], headers=key(), **options).as_numpy(name).tolist()


def error_of(call):
    try:
        call()
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return None


def mixed(client, binary):
    inputs = [
        tensor("age", np.array([1.0, 2.0]), binary),
        tensor("region", np.array(["north", "süd"], np.object_), binary),
        tensor("day", np.array([b"2020-01-02", b"2020-01-03"], np.object_), binary),
        tensor("yes", np.array([True, False]), binary),
    ]
    return client.infer("mixed", inputs, headers=key()).as_numpy("price").tolist()


async def asynchronous():
    async with triton_aio.InferenceServerClient(URL) as client:
        inputs = [tensor("any", ROWS, package=triton_aio)]
        answer = await client.infer("crop-yield", inputs, headers=key(), request_compression_algorithm="gzip")
        return answer.as_numpy("predict").tolist()


with triton.InferenceServerClient(URL, concurrency=2) as client:
    outputs = [triton.InferRequestedOutput(name, binary_data=name == "oranges") for name in ("oranges", "apples_upper")]
    named = client.infer(
        "crop-yield",
        by_feature(np.int32, True),
        outputs=outputs,
        request_id="7",
        headers=key(),
        parameters={"interval": 0.9},
    )
    found = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready("crop-yield", headers=key()),
        "version_ready": client.is_model_ready("crop-yield", "1", headers=key()),
        "other_ready": client.is_model_ready("nothing", headers=key()),
        "server": client.get_server_metadata(),
        "metadata": client.get_model_metadata("crop-yield", headers=key()),
        "index": client.get_model_repository_index(headers=key()),
        "whole": whole(client),
        "version": whole(client, model_version="1"),
        "json": client.infer(
            "crop-yield", [tensor("any", ROWS, binary=False)], headers=key(),
            outputs=[triton.InferRequestedOutput("predict", binary_data=False)],
        ).as_numpy("predict").tolist(),
        "gzip": whole(client, request_compression_algorithm="gzip", response_compression_algorithm="gzip"),
        "deflate": whole(client, request_compression_algorithm="deflate", response_compression_algorithm="deflate"),
        "by_feature": [
            client.infer("crop-yield", by_feature(dtype, binary), headers=key()).as_numpy("apples").tolist()
            for dtype in DTYPES
            for binary in (True, False)
        ],
        "named": {
            "id": named.get_response()["id"],
            "outputs": [output["name"] for output in named.get_response()["outputs"]],
            "oranges": named.as_numpy("oranges").tolist(),
            "upper": named.as_numpy("apples_upper").tolist(),
        },
        "mixed": [mixed(client, binary) for binary in (True, False)],
        "threaded": client.async_infer("crop-yield", [tensor("any", ROWS)], headers=key())
        .get_result()
        .as_numpy("predict")
        .tolist(),
        "aio": asyncio.run(asynchronous()),
        "errors": [
            error_of(lambda: whole(client, "nothing")),
            error_of(lambda: client.infer("crop-yield", [tensor("any", ROWS[:, :2])], headers=key())),
            error_of(lambda: client.infer("crop-yield", [tensor("any", ROWS * np.nan)], headers=key())),
            error_of(lambda: client.infer("crop-yield", [tensor("any", ROWS * np.nan, binary=False)], headers=key())),
            error_of(lambda: client.get_model_config("crop-yield", headers=key())),
            error_of(lambda: client.load_model("crop-yield", headers=key())),
        ],
    }  # fmt: skip
print(json.dumps(found))
