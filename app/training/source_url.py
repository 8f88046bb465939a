"""URLs of training files, and the URL prefixes that the operator allows.

A URL of a client names no file until this module has found it under an allowed prefix.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, unquote_to_bytes

from app.errors import Forbidden, InvalidInput

SCHEMES = ("s3", "gs", "az", "file")
MAX_URL = 1000  # Characters of a URL.
MAX_GLOBS = 16  # Signs `*` and `?` in a URL.

_URL = re.compile(r"(s3|gs|az|file)://([^/]*)(/.*)?", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._$-]{1,254}")
_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_WILD = re.compile("[*?]")

NOTHING_ALLOWED = (
    "No source may be read, because the setting LINSERVE_SOURCES is not set. The operator sets it to the URL prefixes "
    "of files to train on. Send the rows in the request instead."
)
# The answer is the same whether the file exists or not.
NOT_ALLOWED = (
    "The service may not read this source. The operator sets the URL prefixes of files to train on with "
    "LINSERVE_SOURCES."
)


@dataclass(frozen=True)
class SourceURL:
    """A URL without `.`, `..`, empty segments and percent-encoding.

    The segments before the first with a `*` or `?` are plain text, and the others are patterns.
    """

    scheme: str
    bucket: str  # empty for file
    folders: tuple[str, ...]  # plain segments
    patterns: tuple["re.Pattern[str]", ...] = ()

    @property
    def root(self) -> str:
        """The URL of the bucket."""
        return f"{self.scheme}://{self.bucket}"

    @property
    def path(self) -> Path:
        """The path of the plain segments, for the scheme `file`."""
        return Path("/", *self.folders)

    def url_of(self, key: str) -> str:
        """Return the URL of a key of the bucket, or of an absolute path."""
        return f"{self.root}/{quote(key.lstrip('/'))}"


def parse_source(url: str) -> SourceURL:
    """Return the parts of a client's URL. Raises InvalidInput if it is none."""
    if len(url) > MAX_URL:
        raise _invalid(f"The URL is longer than {MAX_URL} characters.")
    match = _URL.fullmatch(url)
    if match is None:
        raise _invalid(
            "Expected s3://BUCKET/PATH, gs://BUCKET/PATH, az://CONTAINER/PATH or file:///PATH, with an absolute path."
        )
    scheme, bucket, path = match[1], match[2], match[3] or ""
    if (scheme == "file") != (not bucket) or (bucket and not _BUCKET.fullmatch(bucket)):
        raise _invalid(
            "Expected file:///PATH without a host."
            if scheme == "file"
            else f"Expected the name of a bucket after {scheme}://, without user, password or port."
        )
    if _ESCAPE.search(path):
        raise _invalid("A % in a URL starts an escape such as %20. Write %25 for the sign itself.")
    if len(_WILD.findall(path)) > MAX_GLOBS:
        raise _invalid(f"The URL has more than {MAX_GLOBS} of the signs * and ?.")
    segments = _segments(path)
    if not segments or path.endswith(("/", "/.", "/..")):
        raise _invalid("The URL names a folder. Name a file, or several as in /*.parquet.")
    wild = next((place for place, segment in enumerate(segments) if _WILD.search(segment)), len(segments))
    plain = tuple(map(_decoded, segments[:wild]))
    return SourceURL(scheme, bucket, plain, tuple(map(_pattern, segments[wild:])))


def _segments(path: str) -> list[str]:
    """Return the segments of a path, still encoded. `..` removes the one before it, and at the root it does nothing."""
    segments: list[str] = []
    for segment in path.split("/"):
        plain = _decoded(segment)
        if plain == "..":
            del segments[-1:]
        elif plain not in ("", "."):
            segments.append(segment)
    return segments


def _decoded(segment: str) -> str:
    """Return a segment with its escapes decoded, once."""
    try:
        plain = unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise _invalid("The URL's escapes are not UTF-8.") from None
    if "/" in plain or "\\" in plain or not plain.isprintable():
        raise _invalid("A name in the URL has a slash, a backslash or an invisible character.")
    return plain


def _pattern(segment: str) -> "re.Pattern[str]":
    """Return the pattern of a segment. A sign that begins it matches neither `.` nor `_`, which begin hidden names."""
    if "**" in segment:
        raise _invalid("The pattern ** is not supported. Write one * for each folder, as in /*/*.parquet.")
    hidden = "(?![._])" if segment[0] in "*?" else ""
    first, *others = ("[^/]".join(re.escape(_decoded(text)) for text in part.split("?")) for part in segment.split("*"))
    if not others:
        return re.compile(hidden + first, re.DOTALL)
    *middle, last = others
    # Atomic groups take the first match of each part and never another, so that no pattern takes long.
    between = "".join(f"(?>[^/]*?{part})" for part in middle)
    return re.compile(f"{hidden}{first}{between}[^/]*{last}", re.DOTALL)


def _invalid(message: str) -> InvalidInput:
    return InvalidInput.at("/source", message)


@dataclass(frozen=True)
class AllowedSources:
    """The URL prefixes under which clients may name files. Each is a whole folder: /data does not allow /database."""

    prefixes: tuple[SourceURL, ...] = ()

    @classmethod
    def parse(cls, prefixes: str | None) -> "AllowedSources":
        """Return the prefixes of a setting, which are separated by commas. Raises ValueError."""
        return cls(tuple(map(_prefix, (prefixes or "").split(",")))) if prefixes else cls()

    def check_any(self) -> None:
        """Raise Forbidden if there are no prefixes."""
        if not self.prefixes:
            raise Forbidden(NOTHING_ALLOWED)

    def check(self, source: SourceURL) -> None:
        """Raise Forbidden unless the source is under a prefix. Nothing is looked up outside of the prefixes."""
        if not any(self._covers(prefix, source) for prefix in self.prefixes):
            raise Forbidden(NOT_ALLOWED)
        if source.scheme == "file":
            self.real_path(source.path)

    def check_recorded(self, url: str) -> None:
        """Raise Forbidden unless the URL of a file that was found once is a plain one under a prefix."""
        match = _URL.fullmatch(url)
        segments = tuple(map(unquote, (match[3] or "").split("/")[1:])) if match else ()
        if match is None or not segments or any(segment in ("", ".", "..") or "/" in segment for segment in segments):
            raise Forbidden(NOT_ALLOWED)
        source = SourceURL(match[1], match[2], segments)
        if source.scheme == "file":
            if self.real_path(source.path) != source.path:
                raise Forbidden(NOT_ALLOWED)
        elif not any(self._covers(prefix, source) for prefix in self.prefixes):
            raise Forbidden(NOT_ALLOWED)

    def real_path(self, path: Path) -> Path:
        """Return a path of this machine with its symbolic links resolved.

        Raises Forbidden unless it is under a prefix then too, whether or not it exists.
        """
        real = Path(os.path.realpath(path))
        if not any(real.is_relative_to(folder) for folder in self._real_folders()):
            raise Forbidden(NOT_ALLOWED)
        return real

    def _covers(self, prefix: SourceURL, source: SourceURL) -> bool:
        if (prefix.scheme, prefix.bucket) != (source.scheme, source.bucket):
            return False
        if source.scheme == "file":
            folders = [prefix.path, Path(os.path.realpath(prefix.path))]
            return any(source.path.is_relative_to(folder) for folder in folders)
        return source.folders[: len(prefix.folders)] == prefix.folders

    def _real_folders(self) -> list[Path]:
        return [Path(os.path.realpath(prefix.path)) for prefix in self.prefixes if prefix.scheme == "file"]


def _prefix(text: str) -> SourceURL:
    """Return one of the operator's prefixes. Raises ValueError."""
    text = text.strip()
    match = _URL.fullmatch(text)
    expected = "expected URL prefixes such as s3://BUCKET/FOLDER or file:///FOLDER, separated by commas"
    if match is None or (match[1] == "file") != (not match[2]) or (match[2] and not _BUCKET.fullmatch(match[2])):
        raise ValueError(f"{expected}, but one is {text!r}")
    path = match[3] or ""
    if _ESCAPE.search(path) or _WILD.search(path):
        raise ValueError(f"{expected}, without * and ? and with %25 for a percent sign, but one is {text!r}")
    try:
        folders = tuple(map(_decoded, _segments(path)))
    except InvalidInput as error:
        raise ValueError(f"{text!r}: {error.message}") from None
    return SourceURL(match[1], match[2], folders)
