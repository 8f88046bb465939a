"""Exceptions of the harness: a guarantee was broken, or cannot be checked on this machine."""


class Violation(Exception):
    """A guarantee was broken. Any other exception is a fault of the harness or of the machine."""


def demand(holds: bool, otherwise: str) -> None:
    """Raise Violation with the sentence `otherwise` unless `holds`."""
    if not holds:
        raise Violation(otherwise)


class Unable(Exception):
    """This phase cannot run on this machine. The message has the reason."""
