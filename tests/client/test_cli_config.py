"""What the command does without a service: its help, its configuration, and `serve`."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import CLIENT, Command, variables

KEY = "0123456789abcdef-secret-key"


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


def stored(folder: Path) -> Path:
    return folder / "linserve" / "config.json"


def test_the_stored_key_can_be_read_by_its_owner_only(command: Command, tmp_path: Path) -> None:
    (tmp_path / "linserve").mkdir(mode=0o755)
    command.good("config", "set", "url", "https://linserve.example.org/")
    ended = command.good("config", "set", "api-key", stdin=f"{KEY}\n".encode())
    assert json.loads(stored(tmp_path).read_text()) == {"url": "https://linserve.example.org", "api_key": KEY}
    assert stored(tmp_path).stat().st_mode & 0o777 == 0o600
    assert stored(tmp_path).parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(stored(tmp_path).parent) == ["config.json"]  # noqa: PTH208 - names
    shown = command.good("config", "get")
    assert shown.text == "url\thttps://linserve.example.org\napi-key\t…-key\n"
    assert KEY not in ended.text + ended.error + shown.error


def test_a_key_is_never_an_argument(command: Command, tmp_path: Path) -> None:
    ended = command("config", "set", "api-key", KEY)
    assert ended.status == 2
    assert "history" in ended.error
    assert KEY not in ended.error
    assert not stored(tmp_path).exists()


def test_a_key_does_not_follow_to_another_address(command: Command, tmp_path: Path) -> None:
    command.good("config", "set", "url", "https://one.example.org")
    command.good("config", "set", "api-key", stdin=KEY.encode())
    command.good("config", "set", "url", "https://one.example.org/prefix")
    assert "api_key" in stored(tmp_path).read_text()
    assert "removed" in command.good("config", "set", "url", "https://other.example.org").error
    assert "api_key" not in stored(tmp_path).read_text()


def test_what_is_removed_is_not_stored(command: Command) -> None:
    command.good("config", "set", "url", "https://one.example.org")
    assert json.loads(command.good("config", "get", "--json").text) == {
        "url": "https://one.example.org",
        "api_key": None,
    }
    command.good("config", "unset", "url")
    ended = command("config", "get", "url")
    assert (ended.status, ended.error) == (1, "Error: url is not stored.\n")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host",
        "host:8000",
        "http://",
        "http://user:secret@host",  # pragma: allowlist secret
        "http://host/?a=1",
        "http://host:x",
        "http://a b",
    ],
)
def test_an_address_that_cannot_be_one_is_refused(command: Command, tmp_path: Path, url: str) -> None:
    ended = command("config", "set", "url", url)
    assert ended.status == 2
    assert "Error: Invalid value: " in ended.error
    assert not stored(tmp_path).exists()


def test_a_damaged_file_is_named(command: Command, tmp_path: Path) -> None:
    stored(tmp_path).parent.mkdir()
    for content in ("{", "[]", '{"url": 5}', json.dumps({"api_key": "two words"})):  # pragma: allowlist secret
        stored(tmp_path).write_text(content)
        ended = command("config", "get")
        assert ended.status == 1
        assert str(stored(tmp_path)) in ended.error
        assert "Traceback" not in ended.error


def test_the_path_of_the_file_is_shown(command: Command, tmp_path: Path) -> None:
    assert command.good("config", "path").lines == [str(stored(tmp_path))]


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("train",),
        ("train", "missing.csv"),
        ("train", ".", "--target", "a"),
        ("predict", "-", "--interval", "much"),
        ("predict", "-", "--version", "1"),
        ("predict", "-", "--model", "a@1", "--version", "2"),
        ("predict", "-", "--model", "a@"),
        ("predict", "-", "--model", ""),
        ("models", "--url", "nowhere"),
        ("train", "-", "--update", "--forget"),
        ("train", "-", "--option", "name"),
        ("models", "--api-key-file", "missing"),
        ("config", "set", "color", "red"),
    ],
)
def test_wrong_usage_exits_with_2_and_sends_nothing(command: Command, arguments: tuple[str, ...]) -> None:
    ended = command(*arguments)
    assert ended.status == 2, ended
    assert "Usage: linserve" in ended.error
    assert ended.output == b""


def test_an_address_without_a_service_is_named(command: Command) -> None:
    ended = command("models")
    assert (ended.status, ended.output) == (1, b"")
    assert ended.error.startswith("Error: The service cannot be reached at http://127.0.0.1:1: ")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("train", "--help"), ("config", "--help"), ("--version",)])
def test_help_loads_no_package_that_takes_long(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    program = (
        "import atexit, sys\n"
        "heavy = {'httpx', 'narwhals', 'rich', 'numpy', 'sklearn'}\n"
        "atexit.register(lambda: print(heavy & sys.modules.keys(), file=sys.stderr))\n"
        "from linserve.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=variables(tmp_path), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr.endswith("set()\n"), done.stderr
    assert "Usage: linserve" in done.stdout + done.stderr or "linserve 0." in done.stdout


def test_each_command_has_an_example_in_its_help(command: Command) -> None:
    from linserve.cli.app import app
    from linserve.cli.settings import settings

    for info in [*app.registered_commands, *settings.registered_commands]:
        assert info.callback is not None
        assert "Example: linserve " in (info.callback.__doc__ or ""), info.name
    assert "Example: linserve train" in command.good("train", "--help").text


def fake_server(folder: Path, script: str) -> Path:
    folder.mkdir()
    program = folder / "linserve-server"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return folder


def serve(tmp_path: Path, path: str, *arguments: str) -> "subprocess.Popen[str]":
    """Start `linserve serve` as if its Python had no other commands next to it."""
    program = f"import sys; sys.executable = {str(tmp_path / 'python')!r}\nfrom linserve.cli import main\nmain()"
    environment = variables(tmp_path, PATH=path, LINSERVE_URL="http://x", LINSERVE_API_KEY=KEY)
    return subprocess.Popen(
        [sys.executable, "-c", program, "serve", *arguments],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_serve_says_how_to_install_the_service(tmp_path: Path) -> None:
    with serve(tmp_path, str(tmp_path)) as process:
        _, error = process.communicate()
    assert process.returncode == 1
    assert "pip install ." in error


def test_serve_becomes_the_server_with_its_options_and_signals(tmp_path: Path) -> None:
    script = 'trap "exit 7" TERM; echo "$@" "$LINSERVE_URL" "$LINSERVE_API_KEY" $$; while :; do sleep 0.05; done'
    path = fake_server(tmp_path / "server", script)
    with serve(tmp_path, f"{path}:{os.environ['PATH']}", "--port", "8080", "--help") as process:
        assert process.stdout is not None
        assert process.stdout.readline().split() == ["--port", "8080", "--help", str(process.pid)]
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 7


def test_the_package_has_the_version_of_the_service() -> None:
    from app import __version__
    from linserve._version import VERSION

    assert CLIENT.is_dir()
    assert __version__ == VERSION
