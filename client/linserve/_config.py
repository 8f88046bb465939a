"""The address of the service and the API key: as given, in the environment, or in the file of `linserve config`.

A key is a password: the file has mode 600 and its folder mode 700, and a stored key is sent to the stored service only.
"""

import contextlib
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_URL = "http://127.0.0.1:8000"
URL_VARIABLE, KEY_VARIABLE = "LINSERVE_URL", "LINSERVE_API_KEY"


@dataclass(frozen=True)
class Config:
    """The address of the service and its API key."""

    url: str | None = None
    api_key: str | None = None


def config_path() -> Path:
    """Return the path of the file in the platform's folder for configuration."""
    if sys.platform == "win32":
        folder = Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    elif sys.platform == "darwin":
        folder = Path.home() / "Library" / "Application Support"
    else:
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return folder / "linserve" / "config.json"


def read_config() -> Config:
    """Return what the file has. Raises ValueError if it is not the file of `linserve config`."""
    path = config_path()
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        url, api_key = values.get("url"), values.get("api_key")
        return Config(None if url is None else checked_url(url), None if api_key is None else checked_key(api_key))
    except FileNotFoundError:
        return Config()
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path} is not valid: {error} Correct it, or remove it and run `linserve config` again."
        ) from None


def write_config(config: Config) -> Path:
    """Replace the file in one step, and return its path. Only its owner may read it.

    Raises ValueError if a value is invalid.
    """
    url = None if config.url is None else checked_url(config.url)
    api_key = None if config.api_key is None else checked_key(config.api_key)
    values = {name: value for name, value in (("url", url), ("api_key", api_key)) if value is not None}
    path = config_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".config-")  # with mode 600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(values, file, indent=2)
            file.flush()
            os.fsync(descriptor)
        Path(temporary).replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
    return path


def checked_url(url: str) -> str:
    """Return the address without slashes at its end. Raises ValueError if no service can have it."""
    example = f"Write it as in {DEFAULT_URL}."
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, AttributeError):
        is_valid = False
    if not is_valid or not url.isprintable() or " " in url:
        raise ValueError(f"{url!r} is not the address of a service. {example}")
    if "@" in parts.netloc:
        raise ValueError(f"The address contains a user or a password. {example} A key is stored separately.")
    if parts.query or parts.fragment:
        raise ValueError(f"The address contains `?` or `#`. {example}")
    return url.rstrip("/")


def checked_key(key: str) -> str:
    """Return the key without blanks around it. Raises ValueError if it cannot be sent in a header."""
    key = key.strip()
    if not key:
        raise ValueError("The API key is empty.")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError("The API key is not one word of ASCII characters.")
    return key


def is_same_service(one: str, other: str) -> bool:
    """Return True if two addresses have the same scheme, host and port."""
    return _origin(one) == _origin(other)


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def find_config(url: str | None = None, api_key: str | None = None) -> Config:
    """Return the address and the key to use: the arguments, otherwise the environment, otherwise the file.

    Raises ValueError if one of them is invalid.
    """
    url = url or os.environ.get(URL_VARIABLE)
    api_key = api_key or os.environ.get(KEY_VARIABLE)
    if url and api_key:
        return Config(checked_url(url), checked_key(api_key))
    stored = read_config()
    home = stored.url or DEFAULT_URL
    address = checked_url(url) if url else home
    if api_key:
        return Config(address, checked_key(api_key))
    return Config(address, stored.api_key if is_same_service(address, home) else None)
