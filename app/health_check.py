"""The command `linserve-health`: exit with 0 if the service on this machine answers `/health/live`, else with 1.

It asks on the sockets that the service's processes listen on. So it follows every way to name an address (options,
variables, port 0, a unix socket), and a proxy in the environment does not matter. Linux only.
"""

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

SECONDS = 2.0
REQUEST = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
MAX_STATUS_LINE = 100  # bytes

PROC = Path("/proc")
TABLES = {"tcp": socket.AF_INET, "tcp6": socket.AF_INET6}
LISTENING = {"tcp": "0A", "tcp6": "0A", "unix": "00010000"}  # a state, and a flag
# With either of them, uvicorn speaks TLS.
CERTIFICATES = ("SSL_CERTFILE", "SSL_KEYFILE")

Address = tuple[socket.AddressFamily, str | tuple[str, int]]


def main() -> None:
    """Check every service, or only the one whose process id is given."""
    processes = [PROC / number for number in sys.argv[1:]] or [one for one in PROC.glob("[0-9]*") if _is_service(one)]
    found = [(address, _speaks_tls(process)) for process in processes for address in listening(process)]
    faults = [fault for address, tls in found if (fault := _fault(address, tls=tls))]
    if not found:
        faults.append("No process of the service listens. Run this where it runs, as the same user.")
    for fault in faults:
        sys.stderr.write(f"{fault}\n")
    sys.exit(1 if faults else 0)


def listening(process: Path) -> list[Address]:
    """Return the addresses that the process listens on. `process` is its folder in /proc."""
    inodes = set()
    with contextlib.suppress(OSError):  # it ended, or belongs to another user
        for descriptor in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
    return [address for inode, address in _sockets(process) if inode in inodes]


def _sockets(process: Path) -> Iterator[tuple[str, Address]]:
    """Yield the inode and address of every listening socket in the network namespace of the process."""
    for table, family in TABLES.items():
        for line in _lines(process / "net" / table):
            _, local, _, state, *_ = fields = line.split()
            if state == LISTENING[table]:
                host, _, port = local.partition(":")
                yield fields[9], (family, (_reachable(family, host), int(port, 16)))
    for line in _lines(process / "net" / "unix"):
        *fields, inode_and_path = line.split(maxsplit=6)
        inode, _, path = inode_and_path.partition(" ")
        if fields[3] == LISTENING["unix"] and path:
            yield inode, (socket.AF_UNIX, str(process / "cwd" / path))


def _reachable(family: socket.AddressFamily, host: str) -> str:
    """Return the address in its usual notation, or the loopback address for the wildcard address."""
    words = bytes.fromhex(host)
    # The kernel prints words of 32 bits, each as a number of the machine.
    packed = b"".join(
        int.from_bytes(words[i : i + 4], "big").to_bytes(4, sys.byteorder) for i in range(0, len(words), 4)
    )
    if any(packed):
        return socket.inet_ntop(family, packed)
    return "127.0.0.1" if family == socket.AF_INET else "::1"


def _fault(address: Address, *, tls: bool) -> str | None:
    """Return what is wrong with the service's answer, or None."""
    family, place = address
    try:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(SECONDS)
            connection.connect(place)
            with _secured(connection) if tls else connection as stream:
                stream.sendall(REQUEST)
                with stream.makefile("rb") as answer:
                    status = answer.readline(MAX_STATUS_LINE)
    except OSError as error:
        return f"{place}: {error}"
    if status.split()[1:2] == [b"200"]:
        return None
    return f"{place}: expected status 200 from /health/live, received {status!r}"


def _secured(connection: socket.socket) -> socket.socket:
    import ssl  # most services have no need of it, and it takes as long to load as all the rest

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the socket is known to be the service's own
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection)


def _is_service(process: Path) -> bool:
    words = _words(process / "cmdline")
    return process.name != str(os.getpid()) and (
        any(Path(word).name == "linserve-server" for word in words[:3])
        or not {"app.serve", "app.main:app"}.isdisjoint(words)
    )


def _speaks_tls(process: Path) -> bool:
    options = tuple(f"--{name.lower().replace('_', '-')}" for name in CERTIFICATES)
    variables = tuple(f"UVICORN_{name}=" for name in CERTIFICATES)
    return any(word.startswith(options) for word in _words(process / "cmdline")) or any(
        word.startswith(variables) for word in _words(process / "environ")
    )


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").split("\0")
    except OSError:  # it ended, or belongs to another user
        return []


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()[1:]
    except OSError:
        return []


if __name__ == "__main__":
    main()
