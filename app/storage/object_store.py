"""Blobs as objects in a bucket of S3, Google Cloud Storage or Azure, or of a server that speaks one of their APIs."""

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, BinaryIO, Literal, TypeVar, cast
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotModifiedError, PreconditionError
from obstore.store import AzureStore, GCSStore, S3Store

from app.errors import StoreUnavailable
from app.storage.keys import check_key, check_prefix
from app.storage.object_errors import explain, is_missing_blob, is_refusal
from app.storage.ranged_reader import open_ranges
from app.storage.store import Blob, BlobChanged, BlobInfo, BlobNotFound

_T = TypeVar("_T")
_Bucket = S3Store | GCSStore | AzureStore

CONNECT_TIMEOUT = timedelta(seconds=2)
TIMEOUT = timedelta(seconds=4)  # For a request with little data, and between two parts of a response.
LONG_TIMEOUT = timedelta(seconds=60)  # For a request with up to PART bytes.
SMALL = 1 << 20  # Greatest length, in bytes, of a blob that is written within TIMEOUT.
PART = 8 << 20  # Bytes in one part of a multipart upload.
MAX_ATTEMPTS = 4  # Attempts of a conditional write, if others write the blob at the same time.
# A request starts at most this long after the first one, so an operation takes at most 7 seconds without an answer.
RETRIES: Any = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=3),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=1), "base": 2},
}
# Variables that hold an endpoint. One with http:// has to be allowed.
ENDPOINTS = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_ENDPOINT",
    "GOOGLE_BASE_URL",
)
ALLOW_HTTP = ("AWS_ALLOW_HTTP", "AZURE_ALLOW_HTTP", "GOOGLE_ALLOW_HTTP", "ALLOW_HTTP", "AZURE_STORAGE_USE_EMULATOR")


class ObjectStore:
    """A store in a bucket. The vendor's environment variables give its endpoint, region and credentials."""

    def __init__(self, url: str) -> None:
        """Raises StoreMisconfigured if the environment is not valid."""
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        path = unquote(parts.path).strip("/")
        self.url = f"{parts.scheme}://{host}/{path}".rstrip("/")
        try:
            # The timeout of a request includes its body, and the read timeout begins with the request.
            self._quick = _open(parts.scheme, host, path, {"timeout": TIMEOUT})
            self._reading = _open(parts.scheme, host, path, {"timeout": LONG_TIMEOUT, "read_timeout": TIMEOUT})
            self._writing = _open(parts.scheme, host, path, {"timeout": LONG_TIMEOUT})
        except (BaseError, ValueError) as error:
            raise explain(self.url, error) from None

    def get(self, key: str) -> Blob:
        return self._get(check_key(key), None)

    def get_if_changed(self, key: str, etag: str) -> Blob | None:
        try:
            return self._get(check_key(key), etag)
        except NotModifiedError:
            return None

    def info(self, key: str) -> BlobInfo:
        return self._call(check_key(key), lambda: self._head(key))

    def put(self, key: str, content: bytes) -> str:
        return self._put(check_key(key), content, "overwrite")

    def put_if_absent(self, key: str, content: bytes) -> str:
        return self._put_if(check_key(key), content, None)

    def put_if_match(self, key: str, content: bytes, etag: str) -> str:
        return self._put_if(check_key(key), content, etag)

    def list_blobs(self, prefix: str, *, after: str = "") -> Iterator[BlobInfo]:
        # obstore compares prefixes by whole names.
        parent, _, name = check_prefix(prefix).rpartition("/")
        chunks = iter(self._quick.list(parent, offset=after or None, chunk_size=1000))
        while (chunk := self._call(prefix, lambda: next(chunks, None))) is not None:
            for found in chunk:
                key = found["path"]
                if key.startswith(prefix):
                    if key > after:
                        yield _info_of(found)
                elif name and key > prefix:
                    return

    def list_names(self, prefix: str) -> list[str]:
        listed = self._call(prefix, lambda: self._quick.list_with_delimiter(check_prefix(prefix)))
        paths = [*listed["common_prefixes"], *(found["path"] for found in listed["objects"])]
        return sorted({path.rstrip("/").rpartition("/")[2] for path in paths})

    def delete(self, key: str) -> None:
        check_key(key)
        with contextlib.suppress(BlobNotFound):
            self._call(key, lambda: self._quick.delete(key))

    def open_read(self, key: str, etag: str | None = None) -> BinaryIO:
        """Return a file whose reads raise BlobChanged if the blob has been replaced since it was opened."""
        info = self.info(key)
        if etag not in (None, info.etag):
            raise BlobChanged(f"{self.url}/{key} has changed.")

        def fetch(start: int, end: int) -> memoryview:
            options: Any = {"range": (start, end), "if_match": info.etag}
            try:
                return memoryview(self._call(key, lambda: self._reading.get(key, options=options).bytes()))
            except (PreconditionError, BlobNotFound):
                raise BlobChanged(f"{self.url}/{key} was replaced or deleted while it was read.") from None

        return open_ranges(info.size, fetch)

    @contextlib.contextmanager
    def open_write(self, key: str) -> Iterator[BinaryIO]:
        check_key(key)
        file = _Writer(
            open_multipart=lambda: obstore.open_writer(self._writing, key, buffer_size=PART),
            put=lambda content: self.put(key, content),
            call=lambda call: self._call(key, call),
        )
        try:
            yield cast(BinaryIO, file)
        except BaseException as error:
            file.abort(error)
            raise
        file.complete()

    def _head(self, key: str) -> BlobInfo:
        try:
            return _info_of(self._quick.head(key))
        except (BaseError, OSError) as error:
            if not is_refusal(error):
                raise
        # The response to HEAD has no body, and so no reason. That to GET has one. The content is not read here.
        return _info_of(self._reading.get(key).meta)

    def _get(self, key: str, etag: str | None) -> Blob:
        options: Any = {"if_none_match": etag} if etag else None

        def get() -> Blob:
            result = self._reading.get(key, options=options)
            return Blob(bytes(result.bytes()), _etag_of(result.meta))

        return self._call(key, get)

    def _put(self, key: str, content: bytes, mode: Any) -> str:
        bucket = self._quick if len(content) <= SMALL else self._writing
        return _etag_of(self._call(key, lambda: bucket.put(key, content, mode=mode, use_multipart=False)))

    def _put_if(self, key: str, content: bytes, etag: str | None) -> str:
        """Write if the blob still has the tag, or if there is none.

        A condition also fails if the response to an earlier attempt was lost, or if another write is in progress. So
        the blob is read to find out.
        """
        for _ in range(MAX_ATTEMPTS):
            try:
                return self._put(key, content, "create" if etag is None else self._matching(key, etag))
            except (AlreadyExistsError, PreconditionError):
                pass
            except StoreUnavailable as error:
                # The write may have succeeded before the connection failed.
                with contextlib.suppress(StoreUnavailable, BlobNotFound):
                    if (blob := self.get(key)).content == content:
                        return blob.etag
                raise error from None
            try:
                blob = self.get(key)
            except BlobNotFound:
                if etag is not None:
                    raise BlobChanged(f"{self.url}/{key} has been deleted.") from None
                continue
            if blob.content == content:
                return blob.etag
            if blob.etag != etag:
                raise BlobChanged(f"{self.url}/{key} has changed.")
        raise StoreUnavailable(f"{self.url} is not available: other writes to {key} are in progress. Try again later.")

    def _matching(self, key: str, etag: str) -> dict[str, str]:
        """Return the condition that the blob has the tag. Google's writes have conditions on generations only."""
        if not isinstance(self._quick, GCSStore):
            return {"e_tag": etag}
        try:
            meta = self._call(key, lambda: self._quick.head(key))
        except BlobNotFound:
            raise PreconditionError(key) from None
        if _etag_of(meta) != etag:
            raise PreconditionError(key)
        return {"e_tag": etag, "version": str(meta["version"])}

    def _call(self, key: str, call: Callable[[], _T]) -> _T:
        """Call obstore. Raises its errors about conditions, and BlobNotFound or StoreUnavailable for all others."""
        try:
            return call()
        except (AlreadyExistsError, PreconditionError, NotModifiedError):
            raise
        except (BaseError, OSError) as error:
            failure = BlobNotFound(f"{self.url}/{key}") if is_missing_blob(error) else explain(self.url, error)
        raise failure


class _Writer:
    """The writing half of a binary file. A blob that is longer than PART is uploaded in several parts."""

    closed = False  # pyarrow reads this

    def __init__(
        self,
        *,
        open_multipart: Callable[[], "obstore.WritableFile"],
        put: Callable[[bytes], object],
        call: Callable[[Callable[[], object]], object],
    ) -> None:
        self._open_multipart, self._put, self._call = open_multipart, put, call
        self._buffer = bytearray()
        self._upload: obstore.WritableFile | None = None
        self._length = 0

    def write(self, data: bytes | memoryview, /) -> int:
        count = len(memoryview(data).cast("B"))
        self._length += count
        if self._upload is None and self._length <= PART:
            self._buffer += data
            return count
        if self._upload is None:
            self._upload = upload = self._open_multipart()
            first, self._buffer = bytes(self._buffer), bytearray()
            self._call(lambda: upload.write(first))
        upload = self._upload
        self._call(lambda: upload.write(data))
        return count

    def complete(self) -> None:
        """Make the blob visible."""
        if self._upload is None:
            self._put(bytes(self._buffer))
        else:
            self._call(self._upload.close)

    def abort(self, error: BaseException) -> None:
        """Abort an upload in parts. If that fails too, a lifecycle rule of the bucket removes the parts."""
        if self._upload is not None:
            with contextlib.suppress(BaseError, OSError, type(error)):
                self._upload.__exit__(type(error), error, None)

    def tell(self) -> int:
        return self._length

    def writable(self) -> Literal[True]:
        return True

    def readable(self) -> Literal[False]:
        return False

    def seekable(self) -> Literal[False]:
        return False

    def flush(self) -> None:
        """Do nothing; parts are sent when they are complete."""

    def close(self) -> None:
        """Do nothing; the end of the block closes the blob."""


def _info_of(meta: Any) -> BlobInfo:
    return BlobInfo(meta["path"], meta["size"], meta["last_modified"], _etag_of(meta))


def _etag_of(meta: Any) -> str:
    """Return the tag, as HTTP writes it. Azure's lists have it without the quotes."""
    etag = str(meta["e_tag"])
    return etag if etag.endswith('"') else f'"{etag}"'


def _open(scheme: str, bucket: str, prefix: str, timeouts: dict[str, timedelta]) -> _Bucket:
    client: Any = {"connect_timeout": CONNECT_TIMEOUT} | timeouts
    if any(os.environ.get(name, "").lower().startswith("http://") for name in ENDPOINTS) or any(
        os.environ.get(name, "").lower() in ("1", "true", "yes") for name in ALLOW_HTTP
    ):
        client["allow_http"] = True
    options: Any = {"prefix": prefix or None, "client_options": client, "retry_config": RETRIES}
    if scheme == "s3":
        # Not every server with S3's API can delete several objects at once, and one is deleted here.
        return S3Store(bucket, **options, disable_bulk_delete=True)
    return GCSStore(bucket, **options) if scheme == "gs" else AzureStore(bucket, **options)
