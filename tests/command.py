"""The command `linserve` as a user runs it: a process with pipes, or one on a terminal."""

import contextlib
import fcntl
import io
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from service import MAX_SECONDS, ROOT

from linserve.cli import main

CLIENT = ROOT / "client"
PROGRAM = [sys.executable, "-m", "linserve"]
WIDTH = 100  # of the terminal


@dataclass(frozen=True)
class Ended:
    """What a process wrote, and its exit status."""

    status: int
    output: bytes
    error: str

    @property
    def text(self) -> str:
        return self.output.decode()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


def variables(folder: Path, **changed: str) -> dict[str, str]:
    """Return an environment with a configuration folder of its own. Nothing of the machine's shows through."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LINSERVE_", "NO_COLOR"))}
    return inherited | {"PYTHONPATH": str(CLIENT), "XDG_CONFIG_HOME": str(folder), "TERM": "xterm"} | changed


def install(folder: Path) -> None:
    """Write the command into a folder that is to be in PATH."""
    program = folder / "linserve"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{CLIENT}" exec "{sys.executable}" -m linserve "$@"\n')
    program.chmod(0o755)


class Command:
    """Runs `linserve` for one service, in one folder."""

    def __init__(self, folder: Path, url: str = "http://127.0.0.1:1") -> None:
        self.folder = folder
        self.url = url

    def environment(self, **changed: str) -> dict[str, str]:
        return variables(self.folder, LINSERVE_URL=self.url) | changed

    def __call__(self, *arguments: str, stdin: bytes = b"", **changed: str) -> Ended:
        """Run the command as with pipes. It runs in this process, because another takes 0.3 s to load its packages."""
        output, error = io.BytesIO(), io.BytesIO()
        given = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
        stdout = io.TextIOWrapper(output, encoding="utf-8")
        stderr = io.TextIOWrapper(error, encoding="utf-8", write_through=True)
        with (
            mock.patch.object(sys, "argv", ["linserve", *arguments]),
            mock.patch.object(sys, "stdin", given),
            mock.patch.object(sys, "stdout", stdout),
            mock.patch.object(sys, "stderr", stderr),
            mock.patch.object(sys, "excepthook", sys.excepthook),  # Typer replaces it.
            mock.patch.dict(os.environ, self.environment(**changed), clear=True),
            contextlib.chdir(self.folder),
        ):
            status = _exit_status_of(main)
            stdout.flush()
        return Ended(status, output.getvalue(), error.getvalue().decode())

    def good(self, *arguments: str, stdin: bytes = b"") -> Ended:
        """Run the command, which has to succeed."""
        ended = self(*arguments, stdin=stdin)
        assert ended.status == 0, ended
        return ended

    def on_terminal(
        self,
        *arguments: str,
        typed: bytes = b"",
        on_text: Callable[[str, Any], None] = lambda *_: None,
        **changed: str,
    ) -> Ended:
        """Run the command on a terminal, and type something once it asks.

        `on_text` gets all that the command has shown so far, and the process.
        """
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, WIDTH, 0, 0))
        environment = self.environment(**changed)
        environment.pop("COLUMNS", None)
        with subprocess.Popen(
            [*PROGRAM, *arguments],
            stdin=theirs, stdout=theirs, stderr=theirs, cwd=self.folder, env=environment, start_new_session=True,
        ) as process:  # fmt: skip
            os.close(theirs)
            shown = b""
            deadline = time.monotonic() + MAX_SECONDS
            with contextlib.suppress(OSError):  # The terminal is closed with the process.
                while time.monotonic() < deadline:
                    if select.select([ours], [], [], 1.0)[0]:
                        if not (chunk := os.read(ours, 1 << 16)):
                            break
                        shown += chunk
                        if typed and shown.endswith(b": "):  # written once nothing typed is echoed
                            os.write(ours, typed)
                            typed = b""
                        on_text(shown.decode(errors="replace"), process)
            os.close(ours)
            return Ended(process.wait(MAX_SECONDS), shown, "")


def _exit_status_of(program: Callable[[], None]) -> int:
    try:
        program()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def interrupt(process: Any) -> None:
    """Send what Ctrl-C sends."""
    process.send_signal(signal.SIGINT)
