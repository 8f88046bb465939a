"""A local server of the part of Google's bucket API that stores use, because no emulator installs with pip or npm."""

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest


class _Objects:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.generation = 0
        self.blobs: dict[str, tuple[bytes, int]] = {}  # by path: the content and the generation
        self.uploads: dict[str, dict[int, bytes]] = {}  # by id: the parts by number


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: _Objects

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        with self.objects.lock:
            getattr(self, f"_{self.command.lower()}")(unquote(url.path).lstrip("/"), query, body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_any  # noqa: N815 - http.server's names

    def _get(self, path: str, query: dict[str, str], _: bytes) -> None:
        if "list-type" in query:
            self._list(path, query)
        elif path not in self.objects.blobs:
            self._respond(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            content, _generation = self.objects.blobs[path]
            tag = _tag_of(content)
            if self.headers.get("If-None-Match") == tag:
                self._respond(304, b"", path)
            elif self.headers.get("If-Match", tag) != tag:
                self._respond(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            elif given := self.headers.get("Range"):
                first, last = given.removeprefix("bytes=").split("-")
                part = content[int(first) : int(last) + 1]
                self._respond(206, part, path, {"Content-Range": f"bytes {first}-{last}/{len(content)}"})
            else:
                self._respond(200, content, path)

    _head = _get

    def _put(self, path: str, query: dict[str, str], body: bytes) -> None:
        if "partNumber" in query:
            self.objects.uploads[query["uploadId"]][int(query["partNumber"])] = body
            self._respond(200, b"", headers={"ETag": _tag_of(body)})
            return
        expected = self.headers.get("x-goog-if-generation-match")
        if expected is not None and int(expected) != self.objects.blobs.get(path, (b"", 0))[1]:
            self._respond(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            return
        self._write(path, body)
        self._respond(200, b"", path)

    def _post(self, path: str, query: dict[str, str], _: bytes) -> None:
        if "uploads" in query:
            upload = uuid.uuid4().hex
            self.objects.uploads[upload] = {}
            self._respond(200, f"<R><UploadId>{upload}</UploadId></R>".encode())
        else:
            parts = self.objects.uploads.pop(query["uploadId"])
            self._write(path, b"".join(parts[number] for number in sorted(parts)))
            self._respond(200, f"<R><ETag>{escape(_tag_of(self.objects.blobs[path][0]))}</ETag></R>".encode(), path)

    def _delete(self, path: str, query: dict[str, str], _: bytes) -> None:
        if "uploadId" in query:
            self.objects.uploads.pop(query["uploadId"], None)
            self._respond(204, b"")
        else:
            self._respond(204 if self.objects.blobs.pop(path, None) else 404, b"")

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        prefix, after = query.get("prefix", ""), query.get("start-after", "")
        bucket = bucket.rstrip("/")
        found, folders = [], set()
        for path, (content, _) in sorted(self.objects.blobs.items()):
            key = path.removeprefix(f"{bucket}/")
            if path == key or not key.startswith(prefix) or key <= after:
                continue
            name, slash, _rest = key.removeprefix(prefix).partition("/")
            if "delimiter" in query and slash:
                folders.add(f"<CommonPrefixes><Prefix>{escape(prefix + name)}/</Prefix></CommonPrefixes>")
            else:
                found.append(
                    f"<Contents><Key>{escape(key)}</Key><Size>{len(content)}</Size><LastModified>"
                    f"2026-01-01T00:00:00.000Z</LastModified><ETag>{escape(_tag_of(content))}</ETag></Contents>"
                )
        listed = "".join([*found, *sorted(folders)])
        self._respond(200, f"<ListBucketResult>{listed}</ListBucketResult>".encode())

    def _write(self, path: str, content: bytes) -> None:
        self.objects.generation += 1
        self.objects.blobs[path] = content, self.objects.generation

    def _respond(
        self, status: int, body: bytes, path: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response_only(status)
        if path is not None:
            content, generation = self.objects.blobs[path]
            self.send_header("ETag", _tag_of(content))
            self.send_header("x-goog-generation", str(generation))
            self.send_header("Last-Modified", formatdate(usegmt=True))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Do not print."""


def _tag_of(content: bytes) -> str:
    return f'"{md5(content, usedforsecurity=False).hexdigest()}"'


@contextmanager
def google_server() -> Iterator[str]:
    """Yield the URL of a server, and set the variables of its clients meanwhile."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"objects": _Objects()}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GOOGLE_BASE_URL", url)
            patch.setenv("GOOGLE_BEARER_TOKEN", "token")
            yield url
    finally:
        server.shutdown()
        server.server_close()
