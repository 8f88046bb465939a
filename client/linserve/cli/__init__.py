"""The command `linserve`. docs/reference/command-line.md lists all commands and options."""

import os
import sys


def main() -> None:
    """Run the command and exit: 0, 1 (failed), 2 (wrong usage), 130 (interrupted)."""
    _prepare_streams()
    # httpx would load its own command, with rich and pygments, which takes longer than httpx itself.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    from linserve.cli.app import app  # `linserve.cli` loads nothing before it is run
    from linserve.cli.output import discard_stdout  # as above

    try:
        try:
            app(prog_name="linserve")
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        discard_stdout()  # `| head` has read enough.
        sys.exit(0)


def _prepare_streams() -> None:
    """Replace streams that the caller has closed, and write characters that the encoding lacks as escapes."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest free number is that of the stream, so no connection can take it.
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, number)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - for the whole run
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
