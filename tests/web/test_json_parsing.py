"""JSON that is hard to parse, read in every way that the service reads a body."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import httpx
import pytest
from both_ways import Running, ask, started
from hypothesis import given
from hypothesis import strategies as st
from json_suite import ACCEPTED, ACCEPTED_BY_CHOICE, NOT_NUMBERS, REFUSED, REFUSED_BY_CHOICE
from numpy.testing import assert_array_equal
from service import Service, copy_models

from app.data.batch import Columns
from app.data.formats.ndjson import NDJSON
from app.data.json_rows import to_matrix
from app.data.predict_decoder import RowsDecoder, to_array
from app.errors import InvalidInput
from app.storage.memory_budget import LARGE_BODY
from app.web.bodies import decode
from app.web.schemas.predict import PredictRequest

JSON = {"content-type": "application/json"}
ROW = b"[1, 2, 3], "
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


class Way(NamedTuple):
    path: str
    body: Callable[[bytes], bytes]
    fast_path: bool = True
    every: int = 1  # Step between two cases that are sent.


def as_it_is(case: bytes) -> bytes:
    return case


def as_a_value(case: bytes) -> bytes:
    return b'{"instances": [[%b, 67, 43]]}' % case


def after(rows: int) -> Callable[[bytes], bytes]:
    """Return a function that makes the case a value after this number of rows."""
    return lambda case: b'{"instances": [%b[%b, 67, 43]]}' % (ROW * rows, case)


WAYS = {
    "a document": Way("/predict", as_it_is),
    "a document, answered as a table": Way("/predict?interval=0.9", as_it_is),
    "a document for training": Way("/train", as_it_is),
    "a value in a short body": Way("/predict", as_a_value),
    "a value in a body of many rows": Way("/predict", after(200)),
    "a value in a body of many rows, without the fast path": Way("/predict", after(200), fast_path=False),
    # To read 6000 rows for each case takes seconds, so the fast tests send some cases that way.
    "a value in a body too long for the fast path": Way("/predict", after(LARGE_BODY // len(ROW) + 1), every=9),
    "a value, answered as a table": Way("/predict?interval=0.9", as_a_value),
    "a value for training": Way("/train", as_a_value),
}
EVERY_CASE = "each value in a body too long for the fast path"
PARAMETERS = [
    *(pytest.param(way, id=name) for name, way in WAYS.items()),
    pytest.param(Way("/predict", after(LARGE_BODY // len(ROW) + 1)), id=EVERY_CASE, marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The service's protocol in this process, which takes thousands of requests in a moment."""
    folder = tmp_path_factory.mktemp("json-parsing")
    copy_models(folder)
    yield from started(folder)


def statuses(running: Running, way: Way, cases: Mapping[str, bytes]) -> dict[str, int]:
    async def answers() -> dict[str, int]:
        found = {}
        for name in [*cases][:: way.every]:
            body = way.body(cases[name])
            head = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n" % way.path.encode()
            answer, _ = await ask(
                running, [head + b"content-length: %d\r\n\r\n" % len(body) + body], fast_path=way.fast_path
            )
            found[name] = int(answer.status.split()[1])
        return found

    return running.runner.run(answers())


def assert_statuses(running: Running, way: Way, cases: Mapping[str, bytes], expected: Mapping[str, int]) -> None:
    found = statuses(running, way, cases)
    assert len(found) > 10
    assert found == {name: expected[name] for name in found}


def test_the_table_has_every_case_of_the_suite() -> None:
    sizes = [len(cases) for cases in (ACCEPTED, REFUSED, NOT_NUMBERS, ACCEPTED_BY_CHOICE, REFUSED_BY_CHOICE)]
    assert sizes == [95, 185, 3, 10, 25]


@pytest.mark.parametrize("way", PARAMETERS)
def test_json_that_is_not_a_request_is_read_and_rejected_as_invalid_input(running: Running, way: Way) -> None:
    read = {**ACCEPTED, **ACCEPTED_BY_CHOICE, **NOT_NUMBERS}
    expected = dict.fromkeys(read, httpx.codes.UNPROCESSABLE_ENTITY)
    if way.path.startswith("/predict") and way.body is not as_it_is:
        # Numbers by themselves: with those beside them, they are a row.
        expected["structure_lonely_int"] = expected["structure_lonely_negative_real"] = httpx.codes.OK
    assert_statuses(running, way, read, expected)


@pytest.mark.parametrize("way", PARAMETERS)
def test_a_body_that_is_not_json_is_rejected_as_malformed(running: Running, way: Way) -> None:
    refused = {**REFUSED, **REFUSED_BY_CHOICE}
    expected = dict.fromkeys(refused, httpx.codes.BAD_REQUEST)
    if way.body is as_it_is:
        # A byte order mark is left out before a body, and only there.
        expected["structure_UTF-8_BOM_empty_object"] = httpx.codes.UNPROCESSABLE_ENTITY
    if way == WAYS["a document for training"]:
        # An array may be a table. Its parser reads this depth.
        expected["structure_500_nested_arrays"] = httpx.codes.UNPROCESSABLE_ENTITY
    assert_statuses(running, way, refused, expected)


@pytest.mark.parametrize(
    ("number", "value"),
    [
        ("-0", 0.0),
        ("1E+2", 100.0),
        ("1e-400", 0.0),
        ("5e-324", 5e-324),
        ("9007199254740993", 9007199254740992.0),  # 2**53 + 1: the nearest that there is
        ("100000000000000000000", 1e20),
        ("0.1000000000000000055511151231257827021181583404541015625", 0.1),
        ("1.7976931348623157e308", 1.7976931348623157e308),
    ],
)
def test_a_number_is_the_nearest_float_however_it_is_written(number: str, value: float) -> None:
    body = f'{{"instances": [[{number}]]}}'.encode()
    rows, _ = RowsDecoder(["temp"]).decode(body)
    assert_array_equal(to_array(rows, 1), [[value]])
    assert_array_equal(to_matrix(decode(PredictRequest, body).instances, ["temp"], ""), [[value]])


@pytest.mark.parametrize("rows", [0, 200, LARGE_BODY // len(ROW) + 1])
@pytest.mark.parametrize("number", ["1e400", "-1e400", "1" + "0" * 400, "NaN", "Infinity", "-Infinity"])
def test_a_number_out_of_range_is_rejected_with_its_place(service: Service, number: str, rows: int) -> None:
    answer = service.client.post("/predict", content=after(rows)(number.encode()), headers=JSON)
    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"/instances/{rows}/0"]


@given(st.lists(st.lists(FLOATS, min_size=2, max_size=2), min_size=1, max_size=60))
def test_17_digits_are_read_as_the_float_they_were_written_from(rows: list[list[float]]) -> None:
    written = ",".join(f"[{','.join(f'{value:.17g}' for value in row)}]" for row in rows)
    body = f'{{"instances":[{written}]}}'.encode()
    decoded, _ = RowsDecoder(["a", "b"]).decode(body)
    assert_array_equal(to_array(decoded, 2), rows)
    assert_array_equal(to_matrix(decode(PredictRequest, body).instances, ["a", "b"], ""), rows)


def test_the_last_value_of_a_repeated_name_counts(service: Service) -> None:
    row = '"rainfall": 63, "humidity": 44'
    once = service.client.post("/predict", content=f'{{"instances": [{{"temp": 75, {row}}}]}}', headers=JSON)
    assert once.status_code == httpx.codes.OK
    for path in ("/predict", "/models/crop-yield/predict"):
        for twice in (
            f'{{"instances": [{{"temp": "no", "temp": 75, {row}}}]}}',
            f'{{"instances": [[1, 2]], "instances": [{{"temp": 75, {row}}}]}}',
            f'{{"instances": [{{"temp": 9, {row}, "te\\u006dp": 75}}]}}',
        ):
            assert service.client.post(path, content=twice, headers=JSON).json() == once.json()


def is_read_as_a_line(case: bytes) -> bool:
    """Return True if the case is read in a line of NDJSON, in a column that is not requested."""
    try:
        list(NDJSON.batches(b'{"temp": 1, "other": %b}' % case, Columns(["temp"])))
    except InvalidInput as error:
        assert error.message.startswith("Row 1: The line is not JSON")  # noqa: PT017 - or it is read
        return False
    return True


def test_a_line_of_ndjson_is_read_or_rejected_as_a_body_is_except_for_numbers_and_depth() -> None:
    beyond_floats = {name for name in ACCEPTED_BY_CHOICE if name.endswith(("huge_exp", "overflow"))}
    accepted = ({**ACCEPTED, **ACCEPTED_BY_CHOICE}, beyond_floats)
    refused = ({**REFUSED, **REFUSED_BY_CHOICE, **NOT_NUMBERS}, {"structure_500_nested_arrays"})
    for (cases, exceptions), expected in ((accepted, True), (refused, False)):
        lines = {name: case.strip() for name, case in cases.items() if b"\n" not in case.strip()}
        found = {name: is_read_as_a_line(line) for name, line in lines.items()}
        assert found == {name: (name in exceptions) != expected for name in lines}
