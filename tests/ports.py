"""Ports of servers that are started after their address is known, or started again at the same address."""

import socket
import weakref


def hold_port(owner: object) -> int:
    """Return a port of this machine that no other program gets until `owner` is collected.

    A socket that is bound to it and does not listen holds it. Servers that set SO_REUSEADDR can still listen there.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    weakref.finalize(owner, holder.close)
    port: int = holder.getsockname()[1]
    return port
