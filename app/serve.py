"""The command `linserve`: uvicorn with what this service needs of it.

Its options (`linserve --help`) and UVICORN_* variables hold as ever. `uvicorn app.main:app` serves the same, without
the limits and the speed of our own connections.
"""

import logging
import os
import resource
import sys
from importlib.resources import files

import uvicorn

from app import logs
from app.startup import prepared

DEFAULTS = {
    "HTTP": "app.web.connection:Connection",
    "LOG_CONFIG": str(files("app").joinpath("logging.json")),
    "SERVER_HEADER": "false",
    "WS": "none",
    "TIMEOUT_GRACEFUL_SHUTDOWN": "10",  # seconds
}


def main() -> None:
    # A connection is a file, and many systems allow a process 1,024 unless it asks for more.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for name, value in DEFAULTS.items():
        os.environ.setdefault(f"UVICORN_{name}", value)
    if not {"--help", "--version"} & set(sys.argv):
        _check()
    uvicorn.main(["app.main:app", *sys.argv[1:]])


def _check() -> None:
    """End with a line in the log where a setting is wrong, before there are workers that would do so one by one."""
    logs.configure()
    try:
        prepared()
    except ValueError as error:
        logging.getLogger(__name__).critical("not started", extra={"reason": str(error)})
        sys.exit(1)


if __name__ == "__main__":
    main()
