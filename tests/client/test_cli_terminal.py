"""The command on a terminal: progress, tables, Ctrl-C, and text that must not control the terminal."""

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from command import PROGRAM, Command, interrupt
from service import MODELS, Service

ROWS = b"temp,rainfall,humidity\n75,63,44\n"
HOSTILE = "[bold]\x1b]0;owned\x07\x1b[31m\u202eevil"
SHOWN = r"[bold]\x1b]0;owned\x07\x1b[31m\u202eevil"
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
EPOCHS = "100000000"


@pytest.fixture
def command(publishing: Service, tmp_path: Path) -> Command:
    return Command(tmp_path, publishing.url)


def plain(text: str) -> str:
    """Return what a terminal shows, as words."""
    return " ".join(CONTROL.sub(" ", text).split())


@pytest.mark.slow
def test_an_interrupted_training_continues_and_its_job_is_named(command: Command, publishing: Service) -> None:
    seen: list[str] = []

    def on_text(text: str, process: Any) -> None:
        if "epoch" in text and not seen:
            seen.append(text)
            interrupt(process)

    ended = command.on_terminal(
        "train", str(MODELS / "crop-yield" / "yields.csv"), "--target", "apples,oranges", "--model", "unfinished",
        "--solver", "gradient_descent", "--epochs", EPOCHS, "--learning-rate", "0.000001", on_text=on_text,
    )  # fmt: skip
    assert ended.status == 130
    assert "Sending" in ended.text
    assert "━" in seen[0]  # the bar
    found = re.search(r"continues as job ([0-9a-f-]{36})", plain(ended.text))
    assert found is not None
    assert publishing.job(found[1])["finished_at"] is None
    assert "cancelled" in command.good("cancel", found[1]).text
    watched = command("watch", found[1])
    assert (watched.status, watched.error) == (1, f"Error: Job {found[1]} was cancelled.\n")


def test_predictions_are_a_table(command: Command, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(ROWS)
    ended = command.on_terminal("predict", "rows.csv")
    assert ended.status == 0
    assert "apples oranges 53.7956 66.8065 Predicted by crop-yield, version 1." in plain(ended.text)
    assert "\x1b[1m" in ended.text


def test_without_colour_there_are_no_colours(command: Command, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(ROWS)
    ended = command.on_terminal("predict", "rows.csv", "--quiet", NO_COLOR="1")
    assert not re.search(r"\x1b\[(3|4|9|10)\d", ended.text)
    assert plain(ended.text) == "apples oranges 53.7956 66.8065"


def test_binary_data_does_not_reach_a_terminal(command: Command, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(ROWS)
    ended = command.on_terminal("predict", "rows.csv", "--format", "arrow")
    assert ended.status == 2
    assert "garble the terminal" in plain(ended.text)


def test_a_card_fits_a_terminal(command: Command) -> None:
    ended = command.on_terminal("show", "crop-yield@1")
    assert "column coefficient std error t p lower upper intercept 2.20814 3.37853 0.654 0.527" in plain(ended.text)
    assert all(len(CONTROL.sub("", line)) <= 100 for line in ended.text.splitlines())


def test_a_key_is_asked_for_without_an_echo(command: Command, tmp_path: Path) -> None:
    ended = command.on_terminal("config", "set", "api-key", typed=b"typed-by-hand\n")
    assert ended.status == 0
    assert "typed-by-hand" not in ended.text
    assert "typed-by-hand" in (tmp_path / "linserve" / "config.json").read_text()


class Hostile(BaseHTTPRequestHandler):
    """A service whose names and messages contain markup and terminal escapes."""

    def do_GET(self) -> None:
        if self.path.startswith("/models/"):
            problem = {"type": f"urn:{HOSTILE}", "title": HOSTILE, "status": 404, "detail": HOSTILE, "errors": []}
            self._send(404, "application/problem+json", json.dumps(problem))
            return
        item = {"model": HOSTILE, "current": 1, "versions": [1], "features": [HOSTILE], "targets": [":smile:"]}
        self._send(200, "application/json", json.dumps({"items": [item], "next": None}))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._send(200, self.headers["accept"] or "text/csv", f"{HOSTILE}\n1\n")

    def _send(self, status: int, media_type: str, text: str) -> None:
        self.send_response(status)
        self.send_header("content-type", media_type)
        self.send_header("linserve-version", "1")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Command]:
    with HTTPServer(("127.0.0.1", 0), Hostile) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Command(tmp_path, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()


def test_names_neither_control_a_terminal_nor_are_markup(hostile: Command) -> None:
    for arguments in (("models",), ("models", "--json"), ("show", "m")):
        ended = hostile.on_terminal(*arguments)
        assert "[bold]" in ended.text
        assert "\x07" not in ended.text
        assert "\x1b]0" not in ended.text
        assert "\x1b[31m" not in ended.text
        assert "\u202e" not in ended.text


def test_names_in_a_pipe_are_escaped_or_json(hostile: Command) -> None:
    assert SHOWN in hostile.good("models").text
    assert json.loads(hostile.good("models", "--json").text)["model"] == HOSTILE
    assert hostile("show", "m").error == f"Error: {SHOWN}\n"


def test_text_of_results_is_escaped_on_a_terminal_and_exact_in_a_pipe(hostile: Command, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(ROWS)
    assert hostile.good("predict", "rows.csv").output == f"{HOSTILE}\n1\n".encode()
    ended = hostile.on_terminal("predict", "rows.csv", "--format", "csv")
    assert SHOWN in ended.text
    assert "\x1b]0" not in ended.text


class Foreign(Hostile):
    """A server of something else."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers["content-length"] or 0))
        text = '{"hello": 1}' if self.path.startswith("/json") else "<html>"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    do_POST = do_GET  # noqa: N815 - the name that http.server calls


@pytest.mark.parametrize("path", ["/json", "/html"])
def test_another_kind_of_server_is_recognised(tmp_path: Path, path: str) -> None:
    (tmp_path / "rows.csv").write_bytes(ROWS)
    (tmp_path / "out.csv").write_text("as it was")
    with HTTPServer(("127.0.0.1", 0), Foreign) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        command = Command(tmp_path, f"http://127.0.0.1:{server.server_port}{path}")
        ended = [command("models"), command("predict", "rows.csv", "-o", "out.csv")]
        server.shutdown()
        thread.join()
    for one in ended:
        assert one.status == 1
        assert "Linserve" in one.error
        assert "Traceback" not in one.error
    assert (tmp_path / "out.csv").read_text() == "as it was"


def test_closed_streams_are_no_failure(hostile: Command) -> None:
    for redirection, status in ((">&-", 0), ("2>&-", 0), ("<&-", 0)):
        script = f"'{PROGRAM[0]}' -m linserve models {redirection}"
        done = subprocess.run(
            ["bash", "-c", script], cwd=hostile.folder, env=hostile.environment(), capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (status, b"")


def test_a_full_disk_is_a_failure_without_a_traceback(hostile: Command) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*PROGRAM, "models"], env=hostile.environment(), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (1, "Error: [Errno 28] No space left on device\n")
