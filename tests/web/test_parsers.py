"""Any header and any query is read, or rejected with a message."""

import asyncio
import base64
import contextlib
import csv
import gzip
import io
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import pairwise
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest
from backports import zstd
from fastapi import Request
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from service import Service
from starlette.datastructures import QueryParams

from app.errors import InvalidInput, MalformedBody, NotAcceptable
from app.server.protocol import is_host
from app.web.auth import why_not_local
from app.web.bodies import decode
from app.web.decompression import CHUNK_BYTES, MAX_SHORT, SHORT_BYTES, decompress
from app.web.middleware import kept_id
from app.web.negotiation import select_media_type
from app.web.predict_tables import MEDIA_TYPES
from app.web.preferences import preferences
from app.web.query import read_query
from app.web.schemas.predict import PredictParameters
from app.web.schemas.train import FileOptions, TrainRequest
from app.web.schemas.train_query import from_query

OFFERED = MEDIA_TYPES
QUALITIES = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)
RANGES = st.sampled_from([*OFFERED, "*/*", "application/*", "text/*", "image/png", "image/*"])
NAMES = st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=4)
COMPRESSED: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress}

quick = settings(max_examples=50)


# Accept


@quick
@given(st.text(), st.lists(st.sampled_from(OFFERED), min_size=1, unique=True))
def test_any_accept_header_chooses_one_of_those_offered_or_none(accept: str, offered: list[str]) -> None:
    with contextlib.suppress(NotAcceptable):
        assert select_media_type(accept, offered) in offered


@quick
@given(st.dictionaries(RANGES, QUALITIES, min_size=1))
def test_the_best_is_the_one_whose_most_specific_range_has_the_highest_quality(ranges: dict[str, float]) -> None:
    def quality(kind: str) -> float:
        family = f"{kind.partition('/')[0]}/*"
        return ranges.get(kind, ranges.get(family, ranges.get("*/*", 0)))

    accept = " , ".join(f"{name.upper()} ; q={quality}" for name, quality in ranges.items())
    best = max(map(quality, OFFERED))
    if best == 0:
        with pytest.raises(NotAcceptable):
            select_media_type(accept, OFFERED)
    else:
        assert select_media_type(accept, OFFERED) == next(kind for kind in OFFERED if quality(kind) == best)


# Content-Encoding


async def inflate(chunks: Sequence[bytes], encoding: str) -> bytes:
    async def arriving() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    pieces = [piece async for piece in decompress(arriving(), encoding)]
    assert all(0 < len(piece) <= CHUNK_BYTES for piece in pieces)
    return b"".join(pieces)


def cut(body: bytes, places: Sequence[int]) -> list[bytes]:
    places = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(places)]


@pytest.mark.parametrize("encoding", COMPRESSED)
def test_a_thousand_short_members_are_the_most_and_longer_ones_do_not_count(encoding: str) -> None:
    short, long = COMPRESSED[encoding](b"12"), COMPRESSED[encoding](b"1" * SHORT_BYTES)
    allowed = short * MAX_SHORT + long * 100
    assert len(asyncio.run(inflate([allowed], encoding))) == 2 * MAX_SHORT + 100 * SHORT_BYTES
    with pytest.raises(InvalidInput, match="more than 1000 members"):
        asyncio.run(inflate([allowed, short], encoding))


@pytest.mark.parametrize("encoding", COMPRESSED)
@quick
@given(st.lists(st.binary(), min_size=1, max_size=3), st.lists(st.integers(0), max_size=5), st.integers(0, 2**19))
def test_members_cut_anywhere_decompress_to_the_original(
    encoding: str, members: list[bytes], places: list[int], zeros: int
) -> None:
    members.append(bytes(zeros))
    body = b"".join(map(COMPRESSED[encoding], members))
    assert asyncio.run(inflate(cut(body, places), encoding)) == b"".join(members)


@pytest.mark.parametrize("encoding", COMPRESSED)
@quick
@given(st.binary(min_size=1), st.data())
def test_a_compressed_body_that_ends_early_is_malformed(encoding: str, content: bytes, data: st.DataObject) -> None:
    body = COMPRESSED[encoding](content)
    length = data.draw(st.integers(1, len(body) - 1))
    with pytest.raises(MalformedBody):
        asyncio.run(inflate([body[:length]], encoding))


@pytest.mark.parametrize("encoding", COMPRESSED)
@quick
@given(st.binary(min_size=1), st.data())
def test_any_bytes_decompress_or_are_malformed(encoding: str, noise: bytes, data: st.DataObject) -> None:
    body = COMPRESSED[encoding](b"a body")
    at = data.draw(st.integers(0, len(body)))
    for damaged in (noise, body[:at] + noise + body[at:]):
        with contextlib.suppress(MalformedBody):
            asyncio.run(inflate([damaged], encoding))


# Prefer


@quick
@given(st.lists(st.text()))
def test_any_prefer_header_waits_for_some_time_or_not_at_all(fields: list[str]) -> None:
    wait = preferences(fields).wait
    assert wait is None or wait >= 0


@quick
@given(
    st.integers(0, 10**8),
    st.lists(st.sampled_from(["respond-async", "handling=lenient", 'return="minimal"', "nowait=1"]), max_size=2),
    st.sampled_from(["wait={}", 'Wait="{}"', "wait = {}"]),
)
def test_a_wait_is_found_among_other_preferences(seconds: int, others: list[str], written: str) -> None:
    for before in range(len(others) + 1):
        listed = [*others[:before], written.format(seconds), *others[before:]]
        assert preferences(listed).wait == preferences([", ".join(listed)]).wait == seconds
    assert preferences(others).wait is None


# Queries


def as_csv(names: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, quoting=csv.QUOTE_ALL, lineterminator="").writerow(names)
    return line.getvalue()


def query(options: dict[str, object]) -> QueryParams:
    return QueryParams(urlencode(options))


def options_of(items: Sequence[tuple[str, str]]) -> PredictParameters:
    scope = {"type": "http", "query_string": urlencode(items, errors="surrogatepass").encode()}
    return read_query(Request(scope), PredictParameters)


@quick
@given(NAMES, st.none() | st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_options_of_a_table_are_read_as_written(names: list[str], level: float | None) -> None:
    assume(not any("\0" in name for name in names))
    items = [("keep", as_csv(names))] + [("interval", repr(level))] * (level is not None)
    assert options_of(items) == PredictParameters(keep=names, interval=level)


PARAMETERS = st.sampled_from(
    [
        *PredictParameters.model_fields,
        *FileOptions.model_fields,
        "folds",
        "fold_seed",
        "groups",
        "epochs",
        "start",
        "l2",
    ]
)
VALUES = st.one_of(
    st.text(),
    st.floats().map(str),
    st.integers().map(str),
    st.sampled_from(["auto", "exact", "gradient_descent", "current", "random", "true", "update", "never", '"', "a,b"]),
)


@settings(max_examples=100)
@given(st.lists(st.tuples(PARAMETERS | st.text(), VALUES), max_size=4))
@example([("start", "٣"), ("solver", "gradient_descent")])
@example([("epochs", "9" * 5000), ("solver", "gradient_descent")])
@example([("keep", "\0")])
@example([("targets", "\r"), ("features", "\n")])
def test_any_query_is_read_or_rejected(items: list[tuple[str, str]]) -> None:
    with contextlib.suppress(InvalidInput):
        from_query(QueryParams(items))
    with contextlib.suppress(InvalidInput):
        options_of(items)


@quick
@given(
    st.fixed_dictionaries(
        {"kind": st.just("gradient_descent")},
        optional={
            "epochs": st.integers(1, 10**8),
            "learning_rate": st.floats(0, exclude_min=True, allow_infinity=False),
            "batch_size": st.integers(1, 10**9),
            "shuffle": st.booleans(),
            "seed": st.integers(0, 2**31 - 1),
            "start": st.sampled_from(["random", "current"]) | st.builds(dict, version=st.integers(1, 10**6)),
            "momentum": st.floats(0, 1, exclude_max=True),
            "patience": st.integers(1, 10**6),
        },
    ),
    NAMES,
    st.sampled_from(["always", "never"]),
)
def test_options_mean_the_same_in_a_query_and_in_a_body(solver: dict[str, Any], terms: list[str], promote: str) -> None:
    assume(not any("\0" in term for term in terms))
    written = {**solver, "solver": solver["kind"], "terms": as_csv(terms), "promote": promote}
    del written["kind"]
    if isinstance(start := solver.get("start"), dict):
        written["start"] = start["version"]
    body = {"instances": [[1]], "targets": [[1]], "solver": solver, "terms": terms, "promote": promote}

    in_query = from_query(query(written))
    in_body = decode(TrainRequest, json.dumps(body).encode())

    for option in ("solver", "terms", "promote", "mode", "missing", "validation", "model"):
        assert getattr(in_query, option) == getattr(in_body, option)


# X-Request-ID


@quick
@given(st.binary() | st.from_regex(rb"[A-Za-z0-9._-]{1,130}", fullmatch=True))
def test_a_request_id_is_kept_if_it_is_valid_and_can_be_logged(given_id: bytes) -> None:
    is_one = 0 < len(given_id) <= 128 and not re.search(rb"[^A-Za-z0-9._-]", given_id)
    assert kept_id(given_id) == (given_id if is_one else None)


# Tokens of pages

TIMES = st.datetimes(timezones=st.none() | st.timezones()).map(lambda time: time.isoformat())
NUMBERS = st.integers(0, 2**63 - 1)
KEYS = st.tuples(NUMBERS, NUMBERS, st.uuids().map(str))
STARTS = st.tuples(KEYS, st.fixed_dictionaries({}, optional={"since": TIMES, "model": st.text(max_size=5)})) | st.lists(
    st.integers() | st.text(max_size=5) | st.none() | st.booleans() | TIMES | KEYS, max_size=3
)


@settings(max_examples=50)
@given(
    st.text()
    | st.binary().map(lambda noise: base64.urlsafe_b64encode(noise).decode())
    | STARTS.map(lambda start: base64.urlsafe_b64encode(json.dumps(start).encode()).decode())
)
def test_any_token_has_a_page_or_is_refused(service: Service, token: str) -> None:
    answer = service.client.get("/jobs", params={"next": token})
    assert answer.status_code in (httpx.codes.OK, httpx.codes.UNPROCESSABLE_ENTITY), answer.text


# Names, conditions and keys, as a service takes them

PRINTABLE = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=300).map(str.strip)


@quick
@given(st.text(min_size=1).filter(lambda name: name not in (".", "..")))
def test_any_name_of_a_model_is_known_or_not(service: Service, name: str) -> None:
    answer = service.client.get(f"/models/{quote(name, safe='')}")
    # Hypothesis also draws texts of the source files, and other tests have trained models with such names.
    is_known = name in {path.parent.name for path in service.models.glob("*/*.safetensors")}
    assert answer.status_code == (httpx.codes.OK if is_known else httpx.codes.NOT_FOUND)


@quick
@given(PRINTABLE)
def test_any_condition_holds_or_does_not(service: Service, condition: str) -> None:
    header = condition.encode("latin-1")
    unless = service.client.get("/models/crop-yield", headers={b"if-none-match": header})
    assert unless.status_code in (httpx.codes.OK, httpx.codes.NOT_MODIFIED)
    current = {"version": service.client.get("/models/crop-yield").json()["version"]}
    only = service.client.put("/models/crop-yield/current", json=current, headers={b"if-match": header})
    assert only.status_code in (httpx.codes.OK, httpx.codes.PRECONDITION_FAILED)


@quick
@given(PRINTABLE)
def test_any_idempotency_key_is_accepted_or_rejected_before_the_body_is_read(service: Service, key: str) -> None:
    headers = {b"idempotency-key": key.encode("latin-1"), b"content-type": b"application/json"}
    answer = service.client.post("/train", content=b"nothing", headers=headers)
    is_one = re.fullmatch(r"[\x21-\x7e]{1,255}", key)
    assert answer.status_code == (httpx.codes.BAD_REQUEST if is_one else httpx.codes.UNPROCESSABLE_ENTITY)


@quick
@given(PRINTABLE)
def test_any_content_type_is_read_or_rejected(service: Service, kind: str) -> None:
    headers = {b"content-type": kind.encode("latin-1")}
    answer = service.client.post("/predict", content=b"nothing", headers=headers)
    known = kind.partition(";")[0].strip().lower() in MEDIA_TYPES
    assert (answer.status_code == httpx.codes.UNSUPPORTED_MEDIA_TYPE) == (not known)


# Who asks, and whom


@quick
@given(st.binary(max_size=60) | st.from_regex(rb"[a-z0-9.:\[\]-]{0,20}", fullmatch=True))
def test_an_accepted_host_contains_only_a_host(value: bytes) -> None:
    if is_host(value):
        assert not re.search(rb"[\x00-\x20/@?#\\\"<>^`{|}\x7f-\xff]", value)


SITES = st.from_regex(r"(https?://)?[a-z0-9.-]{0,20}(:[0-9]{1,5})?", fullmatch=True).map(str.encode) | st.binary()


@quick
@given(host=SITES, origin=SITES)
def test_a_page_is_local_only_if_host_and_origin_agree(host: bytes, origin: bytes) -> None:
    headers = [(b"host", host), (b"origin", origin)]
    scope = {"type": "http", "client": ("127.0.0.1", 5), "http_version": "1.1", "headers": headers}
    if why_not_local(scope) is None:
        name = host.lower().rpartition(b":")[0] if re.search(rb":\d+\Z", host) else host.lower()
        assert name == b"[::1]" or name.startswith(b"127.") or name.split(b".")[-1] == b"localhost"
        assert origin.lower() in (b"http://" + host, b"https://" + host)
