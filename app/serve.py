"""The command `linserve-server`: uvicorn with this service's connections.

It accepts uvicorn's options (`linserve-server --help`) and UVICORN_* variables. `linserve-server migrate` copies models
between a models folder and a store instead (`app.migrate`). `uvicorn app.main:app` serves the same
application, without the limits and the speed of this service's connections.
"""

import os
import resource
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

DEFAULTS = {
    "HTTP": "app.server.protocol:BoundedHttpProtocol",
    "LOG_CONFIG": str(Path(__file__).with_name("logging.json")),
    "SERVER_HEADER": "false",
    "WS": "none",
    "TIMEOUT_GRACEFUL_SHUTDOWN": "10",  # seconds
}
# Exit status of a process that SIGTERM ended, as shells show it.
TERMINATED = 128 + signal.SIGTERM


def main() -> None:
    if sys.argv[1:2] == ["migrate"]:
        from app.migrate import main as migrate  # only for this command

        sys.exit(migrate(sys.argv[2:]))
    if os.getpid() == 1:
        # The kernel drops signals to the first process of a container while no handler is installed. uvicorn installs
        # its own after everything is loaded. All larger imports therefore come after this line.
        signal.signal(signal.SIGTERM, _exit)
    # A connection takes a file descriptor, and many systems allow a process 1,024 unless it raises the limit.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for name, value in DEFAULTS.items():
        os.environ.setdefault(f"UVICORN_{name}", value)
    if not {"--help", "--version"} & set(sys.argv):
        _check()
    import uvicorn  # as explained above

    uvicorn.main(["app.main:app", *sys.argv[1:]])


def _exit(_signal: int, _frame: FrameType | None) -> NoReturn:
    os._exit(TERMINATED)  # The module that is being imported could catch an exception.


def _check() -> None:
    """Exit with one log line if the service cannot start, before there are workers that would exit one by one."""
    import logging  # these as explained above

    from app import logs
    from app.private_names import check_private_names
    from app.startup import load_config

    logs.configure()
    try:
        load_config()
        check_private_names("uvicorn")
    except (ValueError, ImportError) as error:
        logging.getLogger(__name__).critical("not started", extra={"reason": str(error)})
        sys.exit(1)


if __name__ == "__main__":
    main()
