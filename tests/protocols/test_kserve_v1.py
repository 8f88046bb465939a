"""KServe's own client for its protocol v1, against an unchanged service."""

import json
from pathlib import Path

from mixed import publish, version_of_table
from programs import python_with, run_program
from service import Service

PROGRAM = """
import asyncio, json, os
from kserve import InferenceRESTClient, RESTConfig

URL = os.environ["URL"]
client = InferenceRESTClient(RESTConfig(protocol="v1"))
bird = {"species": "Gentoo", "age": 40.5, "wild": True, "island": "Dream", "seen": "2008-02-29"}
columns = {name: [value] for name, value in bird.items()}


async def main():
    found = {
        "ready": await client.is_model_ready(URL, "birds"),
        "rows": await client.infer(URL, {"instances": [bird, bird]}, model_name="birds"),
        "columns": await client.infer(URL, {"inputs": columns}, model_name="birds"),
        "explained": await client.explain(URL, "birds", {"instances": [bird]}),
    }
    try:
        await client.infer(URL, {"instances": [[1]]}, model_name="birds")
    except Exception as error:
        found["error"] = str(error)
    try:
        await client.is_model_ready(URL, "zebras")
    except Exception as error:
        found["unknown"] = str(error)
    print(json.dumps(found))


asyncio.run(main())
"""


def test_kserves_client_predicts_explains_and_reads_errors(tmp_path: Path) -> None:
    service = Service(tmp_path).start()
    try:
        publish(service.models, version_of_table(), "birds")
        found = json.loads(run_program(python_with("kserve"), PROGRAM, tmp_path, URL=service.url))
        row = {"species": "Gentoo", "age": 40.5, "wild": True, "island": "Dream", "seen": "2008-02-29"}
        own = service.client.post("/models/birds/predict", json={"instances": [row], "explain": True}).json()
    finally:
        service.stop()

    mass = own["predictions"][0]["mass"]
    assert found["ready"] is True
    assert found["rows"] == {"predictions": [mass, mass]}
    assert found["columns"] == {"outputs": [mass]}
    assert found["explained"]["explanations"] == own["contributions"]
    assert found["error"].startswith("1 fault(s) in the rows. /instances/0: Expected 5 values")
    assert found["unknown"].startswith('There is no model "zebras".')
