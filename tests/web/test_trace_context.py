"""The trace of a request in its log record (W3C Trace Context)."""

import pytest
from service import Service

from app.web.trace_context import trace_fields

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"  # pragma: allowlist secret
FIELDS = {"trace_id": TRACE, "span_id": SPAN}


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        ([f"00-{TRACE}-{SPAN}-01"], FIELDS),
        ([f"00-{TRACE}-{SPAN}-00"], FIELDS),
        ([f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be"], FIELDS),
        ([f"cc-{TRACE}-{SPAN}-01"], FIELDS),
        ([], {}),
        ([""], {}),
        ([f"00-{TRACE}-{SPAN}"], {}),
        ([f"00-{TRACE}-{SPAN}-01-more"], {}),
        ([f"00-{TRACE}-{SPAN}-01."], {}),
        ([f"ff-{TRACE}-{SPAN}-01"], {}),
        ([f"00-{'0' * 32}-{SPAN}-01"], {}),
        ([f"00-{TRACE}-{'0' * 16}-01"], {}),
        ([f"00-{TRACE.upper()}-{SPAN}-01"], {}),
        ([f"00-{TRACE[1:]}-{SPAN}-01"], {}),
        ([f"00-{TRACE}-{SPAN}-01"] * 2, {}),
    ],
)
def test_only_one_valid_header_gives_the_ids(values: list[str], fields: dict[str, str]) -> None:
    headers = [(b"accept", b"*/*"), *((b"traceparent", value.encode()) for value in values)]
    assert trace_fields(headers) == fields


def test_the_record_of_a_request_has_its_trace(service: Service) -> None:
    for header, fields in ((f"00-{TRACE}-{SPAN}-01", FIELDS), ("nonsense", {})):
        response = service.client.get("/jobs", headers={"traceparent": header})
        assert response.status_code == 200
        record = service.request_record(response)
        assert {name: record[name] for name in FIELDS if name in record} == fields
