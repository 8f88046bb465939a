"""The formats that CONTRIBUTING.md adds: one file and one entry each, and all else follows."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from service import ROOT, copy_models

# Sends requests to the app in this process, and prints the answers.
PROGRAM = """
import asyncio, json
import httpx
from app.main import app
from app.web.connection_hooks import PROBES

async def main():
    async with app.router.lifespan_context(app) as state:
        async def with_state(scope, receive, send):
            await app({**scope, "state": dict(state)}, receive, send)
        transport = httpx.ASGITransport(with_state)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            post = client.post
            answers = {
                "rows": await post("/inputs/crop-yield", json={"inputs": [[75, 63, 44]]}),
                "wrong": await post("/inputs/crop-yield", json={"inputs": [[75, 63]]}),
                "other": await client.get("/inputs/crop-yield/x"),
                "method": await client.get("/inputs/crop-yield"),
                "document": await client.get("/openapi.json"),
                "metrics": await client.get("/metrics"),
                "export": await client.get("/models/crop-yield/export", params={"format": "csv"}),
            }
    texts = {name: [answer.status_code, dict(answer.headers), answer.text] for name, answer in answers.items()}
    print(json.dumps(texts))

asyncio.run(main())
"""


def apply(diff: str, folder: Path) -> int:
    """Apply a diff without line numbers. Return the number of files."""
    parts = re.split(r"^--- (.*)\n\+\+\+ b/(.*)\n", diff, flags=re.MULTILINE)[1:]
    files = list(zip(parts[::3], parts[1::3], parts[2::3], strict=True))
    for before, name, hunks in files:
        path = folder / name
        text = "" if before == "/dev/null" else path.read_text()
        for hunk in re.split(r"^@@\n", hunks, flags=re.MULTILINE)[1:]:
            lines = hunk.splitlines(keepends=True)
            old, new = ("".join(line[1:] for line in lines if line[0] != sign) for sign in "+-")
            assert text.count(old) == 1 or not text, old
            text = text.replace(old, new) if text else new
        path.write_text(text)
    return len(files)


def diff_of(title: str) -> str:
    """Return the diff in a section of CONTRIBUTING.md."""
    section = (ROOT / "CONTRIBUTING.md").read_text().partition(f"## {title}\n")[2]
    (diff,) = re.findall(r"```diff\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    return str(diff)


def test_a_format_takes_one_file_and_one_entry(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "app", tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__"))
    assert apply(diff_of("Add a wire format"), tmp_path) == 2
    assert apply(diff_of("Add a model format"), tmp_path) == 2
    environment = {
        "PYTHONPATH": str(tmp_path),
        "LINSERVE_MODELS_DIR": str(copy_models(tmp_path)),
        "LINSERVE_STATE_DIR": str(tmp_path / "state"),
        "LINSERVE_TRAINER_MODE": "external",
    }

    printed = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    ).stdout

    answers = json.loads(printed.splitlines()[-1])
    status, headers, text = answers["rows"]
    assert (status, json.loads(text)) == (200, {"outputs": [[53.79556783791256, 66.80653442744479]]})
    assert headers["linserve-version"] == "1"
    assert headers["x-request-id"]
    for name, expected in (("wrong", 422), ("other", 404), ("method", 405)):
        status, _, text = answers[name]
        assert (status, [*json.loads(text)]) == (expected, ["error"])
    operation = json.loads(answers["document"][2])["paths"]["/inputs/{model}"]["post"]
    assert operation["tags"] == ["Inputs"]
    line = 'linserve_requests_total{method="POST",protocol="inputs",route="/inputs/{model}",status="200"} 1.0'
    assert line in answers["metrics"][2]
    status, headers, text = answers["export"]
    assert (status, text.splitlines()[0]) == (200, "target,intercept,temp,rainfall,humidity")
    assert "Intervals" in headers["linserve-not-exported"]
