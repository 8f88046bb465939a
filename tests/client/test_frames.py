"""A frame goes in, and a frame of the same kind comes back, with its index; cells keep their meaning."""

import datetime as dt
import sys
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from service import JOB_SECONDS, Service

from linserve import Client, InvalidInput, UnreadableRows

DAY = dt.date(2026, 3, 1)
ROWS: list[dict[str, Any]] = [
    {
        "city": ("Bergen", "Oslo", "Stavanger")[number % 3],
        "listed": DAY + dt.timedelta(days=number * 3 % 11),
        "area": None if number in (4, 17) else 40.0 + number * 7 % 31,
        "balcony": number % 4 < 2,
        "rent": 9000.0 + 100 * number + 2000 * (number % 3) + 37 * (number * number % 13),
    }
    for number in range(24)
]
FEATURES = [name for name in ROWS[0] if name != "rent"]


@pytest.fixture(scope="module")
def client(publishing: Service) -> Iterator[Client]:
    with Client(publishing.url) as made:
        made.train(ROWS, model="rents", targets="rent").wait(timeout=JOB_SECONDS)
        yield made


@pytest.fixture(scope="module")
def expected(client: Client) -> list[float | None]:
    """The predictions for the rows as JSON."""
    return [row and row["rent"] for row in client.predict(ROWS, model="rents", missing="null")]


def pandas_frame() -> pd.DataFrame:
    return pd.DataFrame(ROWS)


def polars_frame() -> pl.DataFrame:
    return pl.DataFrame(ROWS)


def duckdb_relation() -> Any:
    table = pa.Table.from_pylist(ROWS)
    return duckdb.from_arrow(table)


KINDS: dict[str, tuple[Callable[[], Any], Callable[[Any], list[Any]]]] = {
    "pandas": (pandas_frame, lambda frame: [None if np.isnan(rent) else rent for rent in frame["rent"]]),
    "pandas with Arrow": (
        lambda: pandas_frame().convert_dtypes(dtype_backend="pyarrow"),
        lambda frame: [None if np.isnan(rent) else rent for rent in frame["rent"]],
    ),
    "polars": (polars_frame, lambda frame: frame["rent"].to_list()),
    "polars, lazy": (lambda: polars_frame().lazy(), lambda frame: frame.collect()["rent"].to_list()),
    "pyarrow": (lambda: pa.Table.from_pylist(ROWS), lambda frame: frame["rent"].to_pylist()),
    "duckdb": (duckdb_relation, lambda frame: [rent for (rent,) in frame.fetchall()]),
    "narwhals": (lambda: nw.from_native(polars_frame()), lambda frame: frame["rent"].to_list()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_that_went_in_comes_back(client: Client, expected: list[float | None], kind: str) -> None:
    make, rents_of = KINDS[kind]
    frame = make()

    predicted = client.predict(frame, model="rents")

    assert type(predicted) is type(frame)
    assert rents_of(predicted) == expected


@pytest.mark.parametrize(
    "index",
    [
        pd.RangeIndex(10, 34),
        pd.Index(list("abcd") * 6, name="letters"),
        pd.Index(range(24), name="area"),
        pd.MultiIndex.from_product([list("ab"), range(12)], names=["side", None]),
        pd.MultiIndex.from_product([list("ab"), range(12)], names=["side", "number"]),
        pd.date_range("2026-01-01", periods=24, tz="Europe/Oslo", name="day"),
        pd.period_range("2024-01", periods=24, freq="M", name="month"),
        pd.interval_range(0, 24, name="range"),
        pd.CategoricalIndex(list("abcd") * 6),
        pd.Index([f"x{number}" for number in range(24)], name=("a", 1)),
        pd.Index(["x", (1, 2)] * 12, name="mixed"),
    ],
    ids=str,
)
def test_a_pandas_frame_keeps_its_index(client: Client, expected: list[float | None], index: pd.Index) -> None:
    frame = pandas_frame().set_axis(index)

    predicted = client.predict(frame, model="rents", interval=0.9)
    explained = client.predict(frame, model="rents", explain=True)

    pd.testing.assert_index_equal(explained.index, index, exact=True)
    assert [None if np.isnan(rent) else rent for rent in explained["rent"]] == expected
    pd.testing.assert_index_equal(predicted.index, index, exact=True)
    assert list(predicted.columns) == ["rent", "rent_lower", "rent_upper"]
    assert [None if np.isnan(rent) else rent for rent in predicted["rent"]] == expected


@pytest.mark.parametrize(
    "names",
    [("city",), ("key", "city", "listed"), ("listed", "balcony", "month", "area"), tuple(FEATURES)],
    ids=" ".join,
)
def test_features_in_the_index_are_found_with_and_without_explanations(
    client: Client, expected: list[float | None], names: tuple[str, ...]
) -> None:
    others = {"key": range(24), "month": pd.period_range("2024-01", periods=24, freq="M")}
    frame = (
        pandas_frame()
        .drop(columns="rent")
        .assign(**others)
        .set_index([*names])[[name for name in FEATURES if name not in names]]
    )

    for explain in (False, True):
        predicted = client.predict(frame, model="rents", explain=explain)

        pd.testing.assert_index_equal(predicted.index, frame.index, exact=True)
        assert [None if np.isnan(rent) else rent for rent in predicted["rent"]] == expected


def test_faults_of_explained_rows_are_those_of_the_columns_or_of_the_index(client: Client) -> None:
    rows = pandas_frame()[FEATURES]
    for frame, fault in (
        (rows.rename(columns={"area": "size"}).rename_axis("key"), '"area" is missing'),
        (rows.assign(area="large").rename_axis("key"), "Expected a number"),
        (rows.assign(area="large", key=1).set_index(["key", "area"]), "Expected a number"),
        (rows.assign(area="large").set_index("area"), "Expected a number"),
    ):
        with pytest.raises(InvalidInput, match=fault):
            client.predict(frame, model="rents", explain=True)


CASTS: dict[str, Callable[[], Any]] = {
    "pandas categories": lambda: pandas_frame().astype({"city": "category"}),
    "pandas datetimes": lambda: pandas_frame().assign(listed=lambda rows: pd.to_datetime(rows["listed"])),
    "pandas nullable": lambda: pandas_frame().convert_dtypes(),
    "pandas objects": lambda: pandas_frame().astype({"city": object, "balcony": object}),
    "pandas 32 bits": lambda: pandas_frame().astype({"area": "float32"}),
    "polars categories": lambda: polars_frame().with_columns(pl.col("city").cast(pl.Categorical)),
    "polars enum": lambda: polars_frame().with_columns(
        pl.col("city").cast(pl.Enum(["Stavanger", "Oslo", "Bergen", "Tromsø"]))
    ),
    "polars datetimes": lambda: polars_frame().with_columns(pl.col("listed").cast(pl.Datetime("us", "UTC"))),
    "pyarrow dictionary": lambda: pa.Table.from_pylist(ROWS).set_column(
        0, "city", pa.array([row["city"] for row in ROWS]).dictionary_encode()
    ),
}


@pytest.mark.parametrize("cast", CASTS)
def test_categories_dates_booleans_and_gaps_mean_the_same_in_every_type(
    client: Client, expected: list[float | None], cast: str
) -> None:
    predicted = nw.from_native(client.predict(CASTS[cast](), model="rents"), eager_only=True)

    rents = [None if rent is None or np.isnan(rent) else rent for rent in predicted["rent"].to_list()]
    assert rents == expected


@pytest.mark.parametrize("frame", [pandas_frame(), polars_frame(), pa.Table.from_pylist(ROWS)], ids=["pd", "pl", "pa"])
def test_a_training_on_a_frame_equals_one_on_the_rows(client: Client, frame: Any) -> None:
    job = client.train(frame, model="rents-of-frames", targets=["rent"], promote="never", wait=60).wait(
        timeout=JOB_SECONDS
    )

    card = client.card("rents-of-frames", job.version)
    assert card["coefficients"] == client.card("rents")["coefficients"]
    assert card["features"] == FEATURES


def test_kept_columns_are_those_of_the_frame(client: Client) -> None:
    frame = pandas_frame().assign(rent=pd.Categorical([f"{row['rent']:.0f}" for row in ROWS]), key=range(24))

    predicted = client.predict(frame, model="rents", keep=["key", "rent"])

    assert list(predicted.columns) == ["key", "rent", "predicted_rent"]
    pd.testing.assert_frame_equal(predicted[["key", "rent"]], frame[["key", "rent"]])


@pytest.mark.parametrize("make", [pandas_frame, polars_frame])
def test_explanations_are_columns_that_sum_to_the_prediction(client: Client, make: Callable[[], Any]) -> None:
    predicted = nw.from_native(
        client.predict(make(), model="rents", explain=True, interval=0.9, extrapolation=True), eager_only=True
    )

    columns = ["city[Oslo]", "city[Stavanger]", "listed", "area", "balcony"]
    parts = [f"rent_from_{column}" for column in columns]
    assert predicted.columns == [
        "rent", "rent_lower", "rent_upper", "rent_baseline", *parts, "leverage", "extrapolated"
    ]  # fmt: skip
    complete = predicted.filter(~nw.col("rent").is_null() & ~nw.col("rent").is_nan())
    assert len(complete) == 22
    total = sum(complete[name].to_numpy().astype(float) for name in ["rent_baseline", *parts])
    assert total == pytest.approx(complete["rent"].to_numpy(), rel=1e-12)


@pytest.mark.parametrize("make", [pandas_frame, polars_frame])
def test_a_frame_without_rows_gets_one_without_rows(client: Client, make: Callable[[], Any]) -> None:
    for explain in (False, True):
        predicted = client.predict(make().head(0), model="rents", explain=explain)

        assert (len(predicted), list(predicted.columns)) == (0, ["rent"])


def test_a_column_of_several_types_is_named(client: Client) -> None:
    frame = pd.DataFrame({"city": ["Oslo", 3, b"Bergen"]})

    with pytest.raises(UnreadableRows, match="city"):
        client.predict(frame, model="rents")


@pytest.mark.parametrize(
    "dtype", [pl.Int128, pl.UInt128, pl.List(pl.Int128), pl.Struct({"number": pl.Int128})], ids=str
)
def test_a_column_of_128_bits_is_named(client: Client, dtype: Any) -> None:
    frame = polars_frame().with_columns(pl.lit(None, dtype=dtype).alias("people"))

    for work in (client.predict, client.evaluate, client.train, client.inspect):
        with pytest.raises(UnreadableRows, match=r"'people' has the type .*Int128.* Cast it to Int64"):
            work(frame, model="rents")


def test_a_frame_of_polars_needs_no_pyarrow(
    client: Client, expected: list[float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    assert client.predict(polars_frame(), model="rents")["rent"].to_list() == expected
    with pytest.raises(ImportError, match=r"pip install 'linserve\[pyarrow\]'"):
        client.predict(pandas_frame(), model="rents")


def test_rows_of_an_unknown_kind_are_refused(client: Client) -> None:
    with pytest.raises(TypeError, match="not object"):
        client.predict(object(), model="rents")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="not dict"):
        client.evaluate({"area": 1}, "rents")
    with pytest.raises(ValueError, match="`keep` cannot be combined"):
        client.predict(pandas_frame(), model="rents", keep="area", explain=True)
    with pytest.raises(TypeError, match="need names"):
        client.train([[1, 2], [3, 4]], model="rents", targets="rent")


def test_a_frame_that_cannot_be_sent_is_an_error_of_the_client(client: Client) -> None:
    twice = pd.DataFrame([[1.0, 2.0]], columns=["area", "area"])

    for work in (client.predict, client.evaluate, client.train, client.inspect):
        with pytest.raises(UnreadableRows, match="'area' 2 times"):
            work(twice, model="rents")
    with pytest.raises(TypeError, match="not Series"):
        client.predict(pl.Series([1.0]))  # type: ignore[call-overload]


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame])
def test_explanations_of_rows_with_gaps_are_numbers(client: Client, make: Callable[..., Any]) -> None:
    gap = make([{**ROWS[0], "area": float("nan") if make is pd.DataFrame else None}])

    explained = client.predict(gap, model="rents", explain=True)

    kinds = {
        str(kind).lower() for kind in dict(explained.dtypes if make is pd.DataFrame else explained.schema).values()
    }
    assert kinds == {"float64"}
