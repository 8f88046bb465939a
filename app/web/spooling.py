"""Bodies of tables: their bytes in memory, or in a temporary file if they are long or memory is short."""

import contextlib
import io
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from app.data.batch import Body
from app.data.formats.base import TableFormat
from app.errors import not_stored
from app.prediction.predictor import Workload
from app.storage.memory_budget import Reservation
from app.web import bodies
from app.web.decompression import IDENTITY
from app.web.state import get_memory, get_services

MEMORY_BYTES = 1 << 23  # Bytes of a body, or of a response, above which it is in a temporary file.
CHUNK_BYTES = 1 << 18
_CHUNK_OVERHEAD = 64  # Bytes that a chunk takes in addition to its content, which may be one byte.


def table_workload(body: Body, table_format: TableFormat, encoding: str) -> Workload:
    """Return the work of decoding a table. The size of one that is compressed, Arrow or Parquet bounds no rows."""
    expands = encoding != IDENTITY or not table_format.is_text
    return Workload(body_bytes=sys.maxsize if expands or isinstance(body, Path) else len(body), tables=1)


class MemoryShare:
    """The memory for one body or response: up to MEMORY_BYTES, if the budget allows."""

    def __init__(self, memory: Reservation) -> None:
        self._memory = memory
        self._bytes = 0

    def reserve(self, count: int) -> bool:
        """Reserve `count` more bytes and return True, or release all and return False: they have to go to a file."""
        if self._bytes + count <= MEMORY_BYTES and self._memory.try_reserve(count):
            self._bytes += count
            return True
        self._memory.release(self._bytes)
        return False


@contextlib.asynccontextmanager
async def spool_body(request: Request, chunks: AsyncIterator[bytes]) -> AsyncIterator[Body]:
    """Yield the whole body: bytes, or the path of a temporary file if it is long."""
    services = get_services(request)
    share = MemoryShare(get_memory(request))
    first: list[bytes] = []
    async for chunk in chunks:
        first.append(chunk)
        if not share.reserve(len(chunk) + _CHUNK_OVERHEAD):
            break
    else:
        content = b"".join(first)
        first.clear()
        yield content
        return
    with contextlib.ExitStack() as closing:
        try:
            file = closing.enter_context(services.scratch.open(bodies.content_length(request)))
            await run_in_threadpool(file.writelines, first)
            first.clear()
            async for chunk in chunks:
                file.write(chunk)
        except OSError as error:
            raise not_stored("The rows", error) from error
        yield file.path


@contextlib.asynccontextmanager
async def decompressed_body(request: Request, body: Body, encoding: str) -> AsyncIterator[Body]:
    """Yield the body without its Content-Encoding. Even a few bytes may expand to many."""
    if encoding == IDENTITY:
        yield body
        return
    file = body.open("rb") if isinstance(body, Path) else io.BytesIO(body)
    compressed = bodies.chunks_of(file, CHUNK_BYTES)
    limit = get_services(request).max_upload_bytes
    async with spool_body(request, bodies.iter_decompressed(request, compressed, encoding, limit)) as content:
        yield content
