"""Dates and times as text."""

import pyarrow as pa
import pytest

from app.data.rfc3339 import dates_as_text
from app.errors import InvalidInput

YEAR_0, YEAR_10000 = -62_167_219_200, 253_402_300_800


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([0, None], pa.timestamp("s", "UTC")), ["1970-01-01T00:00:00Z", None]),
        (
            pa.array([1500, 20], pa.timestamp("ms", "Europe/Berlin")),
            ["1970-01-01T00:00:01.5Z", "1970-01-01T00:00:00.02Z"],
        ),
        (
            pa.array([1, 10**9], pa.timestamp("ns", "Nowhere/Never")),
            ["1970-01-01T00:00:00.000000001Z", "1970-01-01T00:00:01Z"],
        ),
        (pa.array([-1], pa.timestamp("us")), ["1969-12-31T23:59:59.999999"]),
        (pa.array([YEAR_0, YEAR_10000 - 1], pa.timestamp("s")), ["0000-01-01T00:00:00", "9999-12-31T23:59:59"]),
        (pa.array([0, None, 1], pa.date32())[1:], [None, "1970-01-02"]),
        (pa.array([86_400_000], pa.date64()), ["1970-01-02"]),
        (pa.array([86_399, 10], pa.time32("s")), ["23:59:59", "00:00:10"]),
        (pa.array([100, 0], pa.time64("us")), ["00:00:00.0001", "00:00:00"]),
        (pa.array([None], pa.timestamp("ns")), [None]),
    ],
)
def test_dates_and_times_are_spelled_as_in_rfc_3339(column: pa.Array, expected: list[str | None]) -> None:
    text = dates_as_text(pa.RecordBatch.from_arrays([column], names=["at"]))
    assert text.schema.field("at").type == pa.string()
    assert text.column("at").to_pylist() == expected


@pytest.mark.parametrize(
    "column",
    [
        pa.array([0, YEAR_10000], pa.timestamp("s")),
        pa.array([YEAR_0 * 1000 - 1], pa.timestamp("ms", "UTC")),
        pa.array([YEAR_10000 // 86_400], pa.date32()),
        pa.array([2**62], pa.timestamp("s")),
        pa.array([86_400], pa.time32("s")),
    ],
)
def test_years_of_more_than_four_digits_are_refused(column: pa.Array) -> None:
    with pytest.raises(InvalidInput, match="years are 0 to 9999") as refused:
        dates_as_text(pa.RecordBatch.from_arrays([column], names=["at"]))
    assert refused.value.details[0].column == "at"


def test_other_columns_are_unchanged() -> None:
    batch = pa.record_batch({"a": [1, None], "b": ["x", "y"], "c": pa.array([1, 2], pa.duration("s"))})
    assert dates_as_text(batch).equals(batch)
