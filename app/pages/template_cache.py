"""Keep compiled templates next to compiled modules, in `__pycache__`.

To compile all templates takes a third of a second of each start. To load them takes a hundredth.
"""

import contextlib
import hashlib
import marshal
import os
import sys
from importlib.metadata import version
from pathlib import Path

from jinja2 import BytecodeCache
from jinja2.bccache import Bucket

DIGEST_BYTES = 32


class TemplateCache(BytecodeCache):
    """A file for each template. If the folder cannot be written, each process compiles the templates."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._compiler = f"{version('jinja2')} {sys.implementation.cache_tag} {_modules_of_pages()}"

    def load_bytecode(self, bucket: Bucket) -> None:
        with contextlib.suppress(OSError):
            content = self._file(bucket).read_bytes()
            digest, code = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
            if digest == self._digest(bucket, code):
                bucket.code = marshal.loads(code)  # noqa: S302 - from the folder of the modules themselves

    def dump_bytecode(self, bucket: Bucket) -> None:
        if sys.dont_write_bytecode:
            return
        code = marshal.dumps(bucket.code)
        with contextlib.suppress(OSError):
            self._folder.mkdir(exist_ok=True)
            # Other processes read either no file or a complete one.
            new = self._folder / f".{bucket.key}.{os.getpid()}"
            try:
                new.write_bytes(self._digest(bucket, code) + code)
                new.replace(self._file(bucket))
            finally:
                new.unlink(missing_ok=True)

    def _digest(self, bucket: Bucket, code: bytes) -> bytes:
        """Return a digest of all that the code is made from, and of the code, which a power failure may truncate."""
        return hashlib.sha256(f"{self._compiler} {bucket.checksum} ".encode() + code).digest()

    def _file(self, bucket: Bucket) -> Path:
        return self._folder / f"{bucket.key}.template"


def _modules_of_pages() -> list[tuple[str, int, int]]:
    """Return what Python compares to see if a module has changed, for those with the options and the filters."""
    found = [(path.name, path.stat()) for path in sorted(Path(__file__).parent.glob("*.py"))]
    return [(name, int(stat.st_mtime), stat.st_size) for name, stat in found]
