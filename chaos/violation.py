"""What the harness raises when the service broke a promise."""


class Violation(Exception):
    """A promise was broken. Any other exception is a fault of the harness or of the machine."""


def demand(holds: bool, otherwise: str) -> None:
    """Raises Violation with the sentence unless the promise holds."""
    if not holds:
        raise Violation(otherwise)


class Unable(Exception):
    """This machine does not let it be tried; the reason is said."""
