"""Shares of the rows' weights that decay has left, by the version that added the rows."""

from app.errors import InvalidInput
from app.registry.model_card import ModelCard

MAX_SHARES = 1000  # Newest versions listed in a card; the shares of older ones are dropped.
MAX_NAMED = 10  # Newest versions named in a message.

NOT_RECORDED = (
    "The version's weights were reduced by decay before it was recorded how much of each row is left. Give `share`, "
    "the share that is left of these rows."
)


def shares_after(base: ModelCard, share: float) -> dict[int, float] | None:
    """Return the shares of earlier versions in a version made from `base`, whose rows all keep this share.

    None if the shares of `base` are not known.
    """
    if base.shares is None:
        return None
    newest = sorted(base.shares)[-MAX_SHARES:]
    return {version: base.shares[version] * share for version in newest}


def share_to_forget(base: ModelCard, trained_in: int | None, share: float | None) -> float:
    """Return the share of their weight that rows to take out have left in `base`.

    `trained_in` is the version that added them. Raises InvalidInput if neither it nor `share` is given and decay has
    reduced their weights, or if that version added no rows.
    """
    if share is not None:
        if share < 1 and not base.discounted:
            raise InvalidInput.at(
                "/share", "Decay has not reduced the weights of this version's rows, so rows are taken out whole."
            )
        return share
    if trained_in is None:
        if not base.discounted:
            return 1.0
        if base.shares is None:
            raise InvalidInput.at("/share", NOT_RECORDED)
        raise InvalidInput.at(
            "/trained_in",
            "Decay has reduced the weights of this version's rows, so only a share of an old row is left to take out. "
            "Give `trained_in`, the version in which the rows were added, or `share`. "
            f"Shares by version: {_listed({version: f'{left:.6g}' for version, left in base.shares.items()})}.",
        )
    if base.shares is None:
        raise InvalidInput.at("/trained_in", NOT_RECORDED)
    if trained_in not in base.shares:
        raise InvalidInput.at(
            "/trained_in",
            f"Version {base.version} holds no rows that were added in version {trained_in}. It holds rows of: "
            f"{_listed(dict.fromkeys(base.shares, ''))}.",
        )
    if base.shares[trained_in] == 0:
        raise InvalidInput.at(
            "/trained_in",
            f"Decay has reduced the rows of version {trained_in} to zero weight, so they cannot be taken out.",
        )
    return base.shares[trained_in]


def _listed(versions: dict[int, str]) -> str:
    newest = sorted(versions, reverse=True)
    named = [f"version {version}" + (f": {versions[version]}" if versions[version] else "") for version in newest]
    more = [f"and {len(named) - MAX_NAMED} older ones"] if len(named) > MAX_NAMED else []
    return ", ".join([*named[:MAX_NAMED], *more])
