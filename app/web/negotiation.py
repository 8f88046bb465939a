"""The media type of a response (RFC 9110, 12.5.1)."""

from collections.abc import Sequence

from app.errors import FieldError, NotAcceptable


def select_media_type(accept: str | None, offered: Sequence[str]) -> str:
    """Return the best of the offered media types for an Accept header, or the first of several best.

    Raises NotAcceptable if the header allows none of them.
    """
    if not accept or accept.strip() == "*/*":
        return offered[0]
    qualities: dict[str, float] = {}
    for media_range, given in map(_range, accept.split(",")):
        qualities[media_range] = max(given, qualities.get(media_range, 0.0))

    def quality(media_type: str) -> float:
        """Return the quality of the most specific range that covers the media type."""
        ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
        return next((qualities[media_range] for media_range in ranges if media_range in qualities), 0.0)

    best = max(offered, key=quality)
    if quality(best) <= 0:
        message = (
            f"Accept has to name {' or '.join(sorted(offered))}, and names none of them. Without it, the answer is "
            f"{offered[0]}."
        )
        raise NotAcceptable(message, [FieldError(message, parameter="Accept")])
    return best


def _range(part: str) -> tuple[str, float]:
    media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = next((value for name, _, value in (p.partition("=") for p in parameters) if name.strip() == "q"), "1")
    try:
        return media_range, min(max(float(quality), 0.0), 1.0)
    except ValueError:
        return media_range, 0.0
