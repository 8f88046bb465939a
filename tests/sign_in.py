"""A service with API keys, and clients that are browsers without scripts."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from service import MAX_SECONDS, NO_TLS, Service
from threaded_service import ThreadedService

HTML = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
KEYS = {"viewer": "predict", "trainer": "train", "ops": "admin"}  # The key of each is "key-of-" and its name.

_TOKEN = re.compile(r'<input type="hidden" name="csrf" value="([0-9a-f]{64})">')


def key_of(name: str) -> str:
    return f"key-of-{name}"


def write_keys(path: Path, *names: str) -> Path:
    digests = {name: hashlib.sha256(key_of(name).encode()).hexdigest() for name in names}
    path.write_text("".join(f"{name} {KEYS[name]} {digest}\n" for name, digest in digests.items()))
    return path


@contextmanager
def guarded_service(
    folder: Path, *, trainer: bool = True, environment: dict[str, str] | None = None
) -> Iterator[Service]:
    """A service with a key for each of KEYS, in the file `keys` in its folder."""
    keys = write_keys(folder / "keys", *KEYS)
    running = ThreadedService(folder, trainer=trainer, environment=environment, api_keys_file=str(keys)).start()
    try:
        yield running
    finally:
        running.stop()


def browser_of(service: Service) -> httpx.Client:
    """Return a client that accepts HTML and keeps cookies. It does not follow redirects."""
    return httpx.Client(base_url=service.url, headers=HTML, timeout=MAX_SECONDS, verify=NO_TLS)


def token_in(page: httpx.Response) -> str:
    """Return the token of the forms on a page."""
    match = _TOKEN.search(page.text)
    assert match is not None, page.text
    return match[1]


def sign_in(client: httpx.Client, name: str, target: str = "/", **fields: str) -> httpx.Response:
    """Send the login form as a browser does."""
    token = token_in(client.get("/login"))
    form = {"csrf": token, "key": key_of(name), "next": target, **fields}
    return client.post("/login", data=form, headers={"origin": origin_of(client)})


def origin_of(client: httpx.Client) -> str:
    """Return the origin that a browser names in the forms of the service's own pages."""
    return str(client.base_url.join("/")).rstrip("/")
