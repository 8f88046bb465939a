"""Checks of the image without building it. scripts/image_trial.sh builds and runs it."""

import re
import subprocess
from itertools import pairwise
from pathlib import Path

from service import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
CONSTRAINTS = (ROOT / "constraints.txt").read_text()


def run_command(text: str) -> list[str]:
    """Return the words of `docker run` in a page or a comment."""
    match = re.search(r"docker run (--read-only(?:.*\\\n)*.*)", text)
    assert match
    return [word for word in match[1].split() if word not in {"\\", "#"}]


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.+)$", DOCKERFILE.replace("\\\n", " "), re.MULTILINE)


def test_the_page_and_the_dockerfile_run_it_with_the_same_command_its_volumes_and_time_to_stop() -> None:
    first = run_command(DOCKERFILE)
    assert run_command((ROOT / "docs/how-to/docker.md").read_text()) == first
    assert first[first.index("--stop-timeout") + 1] == "30"
    volumes = [word.partition(":")[2] for before, word in pairwise(first) if before == "-v"]
    assert f"{volumes}".replace("'", '"') == instructions("VOLUME")[0]


def test_user_is_numeric_and_in_group_0() -> None:
    assert instructions("USER") == ["10001:0"]


def test_everything_installed_is_pinned_by_digest_or_version() -> None:
    assert re.fullmatch(r"BASE=python:3\.11\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", instructions("ARG")[0])
    assert {name.split()[0] for name in instructions("FROM")} == {"${BASE}"}
    installs = [line for line in re.split(r"\n|&&", DOCKERFILE.replace("\\\n", " ")) if "pip install" in line]
    assert installs
    for line in installs:
        assert "-c constraints.txt" in line
    for name in ("pip", "setuptools", "torch"):
        assert re.search(rf"^{name}==", CONSTRAINTS, re.MULTILINE)
    assert "dumb-init==" in DOCKERFILE


def test_the_image_has_the_command_that_sagemaker_runs_and_no_port_that_would_hide_that_of_a_platform(
    tmp_path: Path,
) -> None:
    script = next(line for line in instructions("RUN") if "/venv/bin/serve" in line)
    found = re.search(r"printf '(.*)' >/venv/bin/serve && chmod 755 /venv/bin/serve", script)
    assert found
    command, server = tmp_path / "serve", tmp_path / "linserve-server"
    command.write_text(found[1].replace("\\n", "\n"))
    server.write_text('#!/bin/sh\necho "$@"\n')
    for file in (command, server):
        file.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(
        ["serve", "--workers", "2"], env=environment, executable=command, capture_output=True, check=True
    )
    assert done.stdout == b"serve --workers 2\n"
    assert "UVICORN_PORT" not in " ".join(instructions("ENV"))
    assert instructions("EXPOSE") == ["8000 8080"]
    assert instructions("ENTRYPOINT") == ['["dumb-init", "--single-child", "--"]']
    assert instructions("CMD") == ['["linserve-server"]']


def test_only_the_shipped_version_of_the_model_is_copied() -> None:
    copied = [line for line in instructions("COPY") if line.startswith("models")]
    assert copied == ["models/crop-yield/000001.safetensors /service/models/crop-yield/"]
