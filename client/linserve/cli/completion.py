"""Completion of model names in the shell, from the service.

The shell waits for it, so it gives up early and never writes a message.
"""

import re

import typer

_TIMEOUT = 0.5  # seconds
# Names that the service allows. Nothing else reaches the shell.
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")


def complete_model(context: typer.Context, incomplete: str) -> list[str]:
    """Return the names of the models that begin like the word."""
    return [name for name in _models(context) if name.startswith(incomplete)]


def complete_selector(context: typer.Context, incomplete: str) -> list[str]:
    """Return names of models, and versions once the word has an @."""
    model, at, _ = incomplete.partition("@")
    found = _models(context)
    if not at:
        return [name for name in found if name.startswith(incomplete)]
    return [f"{model}@{number}" for number in found.get(model, []) if f"{model}@{number}".startswith(incomplete)]


def _models(context: typer.Context) -> dict[str, list[int]]:
    try:
        import httpx  # only if a name is completed, because it takes 100 ms to load

        from linserve._config import find_config  # as above

        config = find_config(context.params.get("url"))
        headers = {"X-API-Key": config.api_key} if config.api_key else {}
        response = httpx.get(f"{config.url}/models", params={"limit": 100}, headers=headers, timeout=_TIMEOUT)
        items = response.raise_for_status().json()["items"]
        return {item["model"]: item["versions"] for item in items if _NAME.fullmatch(item["model"])}
    except Exception:  # an error message would be printed into the line that the user types
        return {}
