"""The command `linserve-health`: exit with 0 if the service on this machine answers `/health/live`, else with 1.

It sends its request to the sockets on which the service's processes listen. So it works for every way to choose an
address (options, variables, port 0, a unix socket), and ignores a proxy in the environment. Linux only.
"""

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

# Seconds to wait for a connection and for each part of the response.
TIMEOUT = 2.0
REQUEST = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
# Length of a status line, in bytes.
MAX_STATUS_LINE = 100

PROC = Path("/proc")
TABLES = {"tcp": socket.AF_INET, "tcp6": socket.AF_INET6}
# The state of a listening TCP socket, and the flag of a listening unix socket.
LISTENING = {"tcp": "0A", "tcp6": "0A", "unix": "00010000"}

Address = tuple[socket.AddressFamily, str | tuple[str, int]]


def main() -> None:
    """Check every service, or only those whose process ids are the arguments."""
    processes = [PROC / number for number in sys.argv[1:]] or [
        path for path in PROC.glob("[0-9]*") if _is_service(path)
    ]
    addresses = [(address, _uses_tls(process)) for process in processes for address in listening(process)]
    faults = [fault for address, tls in addresses if (fault := _fault(address, tls=tls))]
    if not addresses:
        faults.append("No process of the service listens. Run this on the same machine and as the same user.")
    for fault in faults:
        sys.stderr.write(f"{fault}\n")
    sys.exit(1 if faults else 0)


def listening(process: Path) -> list[Address]:
    """Return the addresses that the process listens on. `process` is its folder in /proc."""
    inodes = set()
    with contextlib.suppress(OSError):  # The process ended, or belongs to another user.
        for descriptor in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
    return [address for inode, address in _sockets(process) if inode in inodes]


def _sockets(process: Path) -> Iterator[tuple[str, Address]]:
    """Yield the inode and address of every listening socket in the network namespace of the process."""
    for table, family in TABLES.items():
        for line in _read(process / "net" / table).splitlines()[1:]:
            _, local, _, state, *_ = fields = line.split()
            if state == LISTENING[table]:
                host, _, port = local.partition(":")
                yield fields[9], (family, (_reachable(family, host), int(port, 16)))
    for line in _read(process / "net" / "unix").splitlines()[1:]:
        *fields, inode_and_path = line.split(maxsplit=6)
        inode, _, path = inode_and_path.partition(" ")
        if fields[3] == LISTENING["unix"] and path:
            yield inode, (socket.AF_UNIX, str(process / "cwd" / path))


def _reachable(family: socket.AddressFamily, host: str) -> str:
    """Return the address in its usual notation, or the loopback address if it is the wildcard address."""
    words = bytes.fromhex(host)
    # The kernel prints words of 32 bits, each in the machine's byte order.
    packed = struct.pack(f"={len(words) // 4}I", *struct.unpack(f">{len(words) // 4}I", words))
    if any(packed):
        return socket.inet_ntop(family, packed)
    return "127.0.0.1" if family == socket.AF_INET else "::1"


def _fault(address: Address, *, tls: bool) -> str | None:
    """Return what is wrong with the service's response, or None."""
    family, place = address
    try:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT)
            connection.connect(place)
            with _secured(connection) if tls else connection as stream:
                stream.sendall(REQUEST)
                with stream.makefile("rb") as response:
                    status = response.readline(MAX_STATUS_LINE)
    except OSError as error:
        return f"{place}: {error}"
    if status.split()[1:2] == [b"200"]:
        return None
    return f"{place}: expected status 200 from /health/live, received {status!r}"


def _secured(connection: socket.socket) -> socket.socket:
    import ssl  # Most services do not need it, and its import takes as long as all others.

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # The socket is known to be the service's own.
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection)


def _is_service(process: Path) -> bool:
    words = _read(process / "cmdline").split("\0")
    return process.name != str(os.getpid()) and (
        any(Path(word).name == "linserve-server" for word in words[:3])
        or not {"app.serve", "app.main:app"}.isdisjoint(words)
    )


def _uses_tls(process: Path) -> bool:
    """Return True if an option or a variable of uvicorn turns on TLS."""
    options = _read(process / "cmdline").split("\0")
    variables = _read(process / "environ").split("\0")
    return any(word.startswith(("--ssl-certfile", "--ssl-keyfile")) for word in options) or any(
        word.startswith(("UVICORN_SSL_CERTFILE=", "UVICORN_SSL_KEYFILE=")) for word in variables
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # The process ended, or belongs to another user.
        return ""


if __name__ == "__main__":
    main()
