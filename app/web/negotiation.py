"""Which media type to answer with (RFC 9110, 12.5.1)."""

from collections.abc import Mapping, Sequence

from app.errors import FieldError, NotAcceptable


def select_media_type(accept: str | None, offered: Sequence[str]) -> str:
    """The best of the offered media types for an Accept header; of equally good ones the first.

    Raises NotAcceptable where the caller wants none of them.
    """
    if not accept or accept.strip() == "*/*":
        return offered[0]
    qualities: dict[str, float] = {}
    for kind, quality in map(_range, accept.split(",")):
        qualities[kind] = max(quality, qualities.get(kind, 0.0))
    best = max(offered, key=lambda kind: _quality(kind, qualities))
    if _quality(best, qualities) <= 0:
        message = (
            f"Accept has to name {' or '.join(sorted(offered))}, and names none of them. Without it, the answer has "
            "the format of the rows."
        )
        raise NotAcceptable(message, [FieldError(message, parameter="Accept")])
    return best


def _range(part: str) -> tuple[str, float]:
    kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = next((value for name, _, value in (p.partition("=") for p in parameters) if name.strip() == "q"), "1")
    try:
        return kind, min(max(float(quality), 0.0), 1.0)
    except ValueError:
        return kind, 0.0


def _quality(kind: str, qualities: Mapping[str, float]) -> float:
    """Of the most specific range that covers the type."""
    covers = (kind, f"{kind.partition('/')[0]}/*", "*/*")
    return next((qualities[cover] for cover in covers if cover in qualities), 0.0)
