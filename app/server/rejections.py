"""Requests that a connection rejects before the application sees them."""

MAX_TARGET_BYTES = 8 << 10
MAX_HEAD_BYTES = 32 << 10
MAX_HEADERS = 100


class ProtocolError(Exception):
    """Ends the connection with a response of this status. `name` is the name of the problem, as of an error class."""

    def __init__(self, status: int, name: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.name, self.detail = status, name, detail


def malformed(detail: str = "The bytes received are not an HTTP/1.1 request.") -> ProtocolError:
    return ProtocolError(400, "MalformedRequest", detail)


def upgrade_refused() -> ProtocolError:
    return ProtocolError(400, "UpgradeRefused", "A request with a body cannot upgrade to another protocol.")


def too_slow(detail: str) -> ProtocolError:
    return ProtocolError(408, "TooSlow", detail)


def target_too_long() -> ProtocolError:
    return ProtocolError(
        414, "TargetTooLong", f"The path and query of a request have at most {MAX_TARGET_BYTES} bytes."
    )


def headers_too_large() -> ProtocolError:
    most = f"{MAX_HEADERS} headers with {MAX_HEAD_BYTES} bytes in all"
    return ProtocolError(431, "HeadersTooLarge", f"A request has at most {most}.")


def no_memory() -> ProtocolError:
    return ProtocolError(503, "WorkerBusy", "Other requests use the memory of this worker. Send this one again later.")


def too_many_connections() -> ProtocolError:
    return ProtocolError(503, "TooManyConnections", "There are too many connections. Try again later.")
