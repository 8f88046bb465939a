"""MLflow's own client against a service, and the AWS SDK through a front door that stands for SageMaker's."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from programs import python_with, run_program
from service import ROOT, Service

from app.web.protocols.invocations import MLFLOW_VERSION

PROGRAMS = ROOT / "tests" / "protocols" / "programs"
PREDICTIONS = [[53.79556783791256, 66.80653442744479], [81.80747954914833, 101.06464151471732]]
CSV = "".join(f"{apples},{oranges}\n" for apples, oranges in PREDICTIONS)
BOUNDS = [51.44190837533295, 56.149227300492164, 64.73034491934798, 68.88272393554159]


def printed(program: str, packages: str, url: str, folder: Path) -> dict[str, Any]:
    text = (PROGRAMS / f"{program}.py").read_text()
    found: dict[str, Any] = json.loads(run_program(python_with(packages), text, folder, URL=url))
    return found


def test_mlflows_client_gets_predictions_bounds_and_errors(service: Service, tmp_path: Path) -> None:
    answers = printed("mlflow_client", "mlflow", service.url, tmp_path)

    assert answers["version"] == MLFLOW_VERSION
    for name in ("frame", "shuffled", "array", "list", "instances"):
        assert answers[name] == [pytest.approx(row) for row in PREDICTIONS], name
    assert answers["columns"][:4] == ["apples", "oranges", "apples_lower", "apples_upper"]
    assert answers["bounds"][0] == pytest.approx([*PREDICTIONS[0], *BOUNDS])
    assert "error code 400" in answers["gap"]
    assert "/dataframe_split/data/1/temp: Expected a number, found null." in answers["gap"]
    assert answers["without a gap"] == [pytest.approx(PREDICTIONS[0]), [None, None]]
    assert "There is no such option" in answers["unknown option"]
    assert '\\"rainfall\\" is missing' in answers["missing feature"]


def test_the_version_is_that_of_the_client_that_is_installed() -> None:
    requirements = (ROOT / "tests" / "protocols" / "requirements" / "mlflow.txt").read_text().splitlines()
    assert f"mlflow-skinny=={MLFLOW_VERSION}" in requirements


@contextlib.contextmanager
def sagemaker(container: str) -> Iterator[str]:
    """Run a front door as SageMaker's: it takes the calls of the SDK and passes them on to the container."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            assert self.path == "/endpoints/crop-yield/invocations"
            body = self.rfile.read(int(self.headers["content-length"]))
            passed = ("content-type", "accept", "x-amzn-sagemaker-custom-attributes", "x-amzn-sagemaker-target-model")
            headers = {name: self.headers[name] for name in passed if name in self.headers}
            response = httpx.post(f"{container}/invocations", content=body, headers=headers, timeout=60)
            returned = {"content-type": response.headers["content-type"]}
            if attributes := response.headers.get("x-amzn-sagemaker-custom-attributes"):
                returned["x-amzn-sagemaker-custom-attributes"] = attributes
            status, content = response.status_code, response.content
            if status != 200:
                error = {"OriginalStatusCode": status, "OriginalMessage": response.text, "Message": response.text}
                status, content = 424, json.dumps(error).encode()
                returned = {"content-type": "application/json", "x-amzn-errortype": "ModelError"}
            self.send_response_only(status)
            for name, value in returned.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as http.server
            """Write no log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_aws_sdk_gets_what_it_accepts_and_the_sentences_of_errors(service: Service, tmp_path: Path) -> None:
    with sagemaker(service.url) as url:
        answers = printed("sagemaker_runtime", "sagemaker", url, tmp_path)

    for name in ("csv", "header"):
        assert answers[name] == {"type": "text/csv; charset=utf-8", "body": CSV, "attributes": None}
    assert json.loads(answers["json"]["body"]) == {"predictions": [pytest.approx(PREDICTIONS[0])]}
    apples, oranges = PREDICTIONS[0]
    assert json.loads(answers["lines"]["body"]) == {"apples": pytest.approx(apples), "oranges": pytest.approx(oranges)}
    assert [float(cell) for cell in answers["options"]["body"].split(",")] == pytest.approx([*PREDICTIONS[0], *BOUNDS])
    assert answers["options"]["attributes"] == "model=crop-yield,version=1"
    assert answers["model"]["status"] == 404
    assert 'There is no model \\"other\\".' in answers["model"]["message"]
    assert answers["wrong"]["status"] == 400
    assert json.loads(answers["wrong"]["message"])["message"].startswith("Row 1 has 2 value(s)")
