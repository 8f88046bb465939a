"""The command `linserve-server`: uvicorn with this service's connections.

It accepts uvicorn's options (`linserve-server --help`) and UVICORN_* variables. `linserve-server migrate` copies models
between a models folder and a store instead (`app.migrate`). `uvicorn app.main:app` serves the same
application, without the limits and the speed of this service's connections.

`linserve-server serve`, which SageMaker runs in a container, listens on its port. Vertex AI names a port in a variable.
"""

import ctypes
import gc
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
SAGEMAKER_PORT = "8080"
VERTEX_PORT = "AIP_HTTP_PORT"  # Variable with the port that Vertex AI sends requests to.
# Exit status of a process that SIGTERM ended, as shells show it.
TERMINATED = 128 + signal.SIGTERM
# Allocations between garbage collections. Imports make fewer, so none runs meanwhile: they leave no garbage.
LOADING_THRESHOLD = 300_000
# Parameters of glibc's mallopt (malloc.h).
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
LARGE_BLOCK = 8 << 20  # Bytes from which a block of memory has pages of its own.
KEPT = 32 << 20  # Freed bytes at the end of the heap up to which glibc keeps them for the next requests.

# Not in main(), because web workers import this module without calling it. `app.main` sets the final threshold.
gc.set_threshold(LOADING_THRESHOLD)


def give_large_blocks_own_pages() -> None:
    """Let glibc return each block of LARGE_BLOCK bytes or more to the system when it is freed.

    Once large blocks have been freed, glibc places blocks of up to 32 MiB in the heap. Bodies that grow side by side
    are then copied from place to place, and the heap keeps the holes: six gzip bombs took up to 358 MiB of a budget of
    256 MiB, of which 192 MiB were reserved. Other C libraries have no `mallopt`.
    """
    if set_parameter := getattr(ctypes.CDLL(None), "mallopt", None):
        set_parameter(MMAP_THRESHOLD, LARGE_BLOCK)
        # Otherwise it is 128 KiB from then on: each request would return its smaller blocks too, and get new pages.
        set_parameter(TRIM_THRESHOLD, KEPT)


# Not in main() either, for the same reason.
give_large_blocks_own_pages()


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
    is_sagemaker = sys.argv[1:2] == ["serve"]
    defaults = DEFAULTS | ({"PORT": SAGEMAKER_PORT} if is_sagemaker else {})
    if port := os.environ.get(VERTEX_PORT):
        defaults["PORT"] = port
    for name, value in defaults.items():
        os.environ.setdefault(f"UVICORN_{name}", value)
    arguments = sys.argv[1 + is_sagemaker :]
    if not {"--help", "--version"} & set(arguments):
        _check()
    import uvicorn  # as explained above

    uvicorn.main(["app.main:app", *arguments])


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
