"""Versions of several sites, merged, are the version of all their rows together."""

import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
from foreign import MIN_ROWS, Tensors, merge, rewritten
from hypothesis import given, settings
from hypothesis import strategies as st
from laboratory import Laboratory, coefficients, predictions
from numpy.testing import assert_allclose

from app.data.columns.options import ColumnOptions, ReadingOptions
from app.errors import InvalidInput, LinserveError, ModelFileInvalid, Unavailable
from app.registry.folder.publisher import FolderPublisher
from app.registry.merge_export import encode_for_merge
from app.registry.version_file import Version
from app.regression.linear_model import RANGES_UNKNOWN
from app.training.diagnostics import WITHOUT_ROWS

NIST = Path(__file__).parents[1] / "regression" / "nist"
HEADER = "age,city,sold,day,rent,price"
EXACT = 1e-12


@pytest.fixture
def laboratory(tmp_path: Path) -> Laboratory:
    return Laboratory(tmp_path)


def rows_of(seed: int, count: int, cities: str) -> list[str]:
    rng = np.random.default_rng(seed)
    rows = []
    for age, city, sold, day in zip(
        rng.normal(50 + seed, 9, count),
        rng.integers(len(cities), size=count),
        rng.integers(2, size=count),
        rng.integers(1, 29, size=count),
        strict=True,
    ):
        rent = age * 3 + city + sold + day / 7 + rng.normal()
        rows.append(f"{age},{cities[city]},{['no', 'yes'][sold]},2026-03-{day:02},{rent},{rent * age}")
    return rows


NORTH, SOUTH = rows_of(1, 200, "bcd"), rows_of(2, 150, "aec")


def train(laboratory: Laboratory, rows: list[str], model: str, *, header: str = HEADER, **options: Any) -> Version:
    content = "\n".join([header, *rows]).encode()
    return laboratory.train(content, "csv", model, targets=options.pop("targets", ("rent", "price")), **options)


def exported(laboratory: Laboratory, version: Version, *, whole: bool = False) -> bytes:
    if not whole:
        return encode_for_merge(version, MIN_ROWS)
    with laboratory.context.registry.file(version.card.model, version.card.version) as file:
        return file.read()


SAMPLE = pa.table(
    {
        "age": [40.0, 50.0, 61.0, 30.0, 70.0],
        "city": list("abcde"),
        "sold": [True, False, True, True, False],
        "day": ["2026-03-02", "2026-03-03", "2026-03-04", "2026-04-01", "2026-01-01"],
    }
)


def assert_same(found: Version, expected: Version, sample: pa.Table = SAMPLE, rtol: float = EXACT) -> None:
    assert found.card.rows == expected.card.rows
    assert found.card.rank == expected.card.rank
    assert_allclose(predictions(found, sample), predictions(expected, sample), rtol=rtol)
    assert_allclose(found.model.residual_norms, expected.model.residual_norms, rtol=max(rtol, 1e-11))
    assert found.card.inference_unavailable == expected.card.inference_unavailable
    assert found.card.metrics["rent"] == pytest.approx(expected.card.metrics["rent"], rel=1e-9)


@pytest.mark.parametrize("whole", [True, False])
def test_two_sites_with_other_levels_give_the_model_of_all_their_rows(laboratory: Laboratory, *, whole: bool) -> None:
    train(laboratory, NORTH, "north")
    south = train(laboratory, SOUTH, "south")
    together = train(laboratory, NORTH + SOUTH, "together")

    merged = merge(laboratory, "north", exported(laboratory, south, whole=whole))

    assert_same(merged, together)
    assert merged.card.schema_of_rows.features[1].levels == ("b", "c", "d", "a", "e")
    assert (merged.card.mode, merged.card.parent, merged.card.version) == ("update", 1, 2)
    counts = merged.model.statistics.indicator_rows
    assert counts is not None
    cities = [row.split(",")[1] for row in NORTH + SOUTH]
    named = dict(zip(merged.model.columns, counts.tolist(), strict=True))
    assert [named[f"city[{city}]"] for city in "acde"] == [cities.count(city) for city in "acde"]
    assert (RANGES_UNKNOWN in merged.card.warnings) is not whole
    assert (merged.card.diagnostics, merged.card.no_diagnostics) == (None, WITHOUT_ROWS)
    if whole:
        assert_allclose(merged.model.statistics.minimum[0], min(float(row.split(",")[0]) for row in NORTH + SOUTH))


def test_a_merge_and_a_forget_of_the_same_file_leave_the_model_as_it_was(laboratory: Laboratory) -> None:
    before = train(laboratory, NORTH, "north")
    content = exported(laboratory, train(laboratory, SOUTH, "south"))
    merge(laboratory, "north", content)

    after = merge(laboratory, "north", content, mode="forget")

    assert after.card.rows == before.card.rows
    known = SAMPLE.slice(1, 3)
    assert_allclose(predictions(after, known), predictions(before, known), rtol=EXACT)
    assert_allclose(after.model.residual_norms, before.model.residual_norms, rtol=1e-10)
    assert after.card.precision_bounds is not None


@pytest.mark.parametrize("mode", ["update", "forget"])
def test_a_merge_is_not_based_on_an_older_version_in_place_of_a_damaged_one(
    laboratory: Laboratory, tmp_path: Path, mode: Literal["update", "forget"]
) -> None:
    train(laboratory, NORTH, "north")
    content = exported(laboratory, train(laboratory, NORTH[50:], "south"))
    merge(laboratory, "north", content)
    (path,) = tmp_path.rglob("north/000002.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ModelFileInvalid, match="Version 2 of"):
        merge(laboratory, "north", content, mode=mode)
    assert laboratory.context.registry.versions("north") == [1, 2]


def test_a_model_that_does_not_exist_is_made_from_the_files(laboratory: Laboratory) -> None:
    files = [exported(laboratory, train(laboratory, rows, name)) for name, rows in (("n", NORTH), ("s", SOUTH))]
    together = train(laboratory, NORTH + SOUTH, "together")

    merged = merge(laboratory, "new", *files)

    assert_same(merged, together)
    assert (merged.card.mode, merged.card.version, merged.card.parent) == ("replace", 1, None)
    assert_same(merge(laboratory, "reversed", *files[::-1]), together)


def test_columns_and_targets_may_be_in_another_order(laboratory: Laboratory) -> None:
    train(laboratory, NORTH, "north")
    turned = [",".join(row.split(",")[::-1]) for row in SOUTH]
    header = ",".join(HEADER.split(",")[::-1])
    south = train(laboratory, turned, "south", header=header, targets=("price", "rent"))

    merged = merge(laboratory, "north", exported(laboratory, south))

    assert_same(merged, train(laboratory, NORTH + SOUTH, "together"))


def test_sites_may_have_other_dialects_and_other_constants_for_gaps(laboratory: Laboratory) -> None:
    gaps = ReadingOptions(missing="indicator")
    north = [f",{row.partition(',')[2]}" if number % 8 == 0 else row for number, row in enumerate(NORTH)]
    south = [f",{row.partition(',')[2]}" if number % 5 == 0 else row for number, row in enumerate(SOUTH)]
    train(laboratory, north, "north", reading=gaps)
    semicolons = [row.replace(",", ";").replace(".", ",") for row in south]
    theirs = train(laboratory, semicolons, "south", header=HEADER.replace(",", ";"), reading=gaps)
    together = train(laboratory, north + south, "together", reading=gaps)

    merged = merge(laboratory, "north", exported(laboratory, theirs))

    assert_same(merged, together, rtol=1e-11)
    assert merged.card.schema_of_rows.dialect.sep == ","


def test_a_level_of_all_rows_of_a_site_is_a_level_of_the_merged_model(laboratory: Laboratory) -> None:
    train(laboratory, NORTH, "north")
    single = rows_of(3, 90, "a")
    option = ReadingOptions(columns={"city": ColumnOptions(kind="category")})
    site = train(laboratory, single, "single", reading=option)

    merged = merge(laboratory, "north", exported(laboratory, site))

    assert_same(merged, train(laboratory, NORTH + single, "together"), SAMPLE.slice(0, 4))


def wampler(base: float) -> tuple[list[str], list[list[float]], list[float]]:
    """Return names, rows and certified coefficients of the NIST sets Wampler1 and Wampler2."""
    coefficients_ = [base**power for power in range(6)]
    rows = [
        [sum(c * x**power for power, c in enumerate(coefficients_)), *(float(x**power) for power in range(1, 6))]
        for x in range(21)
    ]
    return ["y", *(f"p{power}" for power in range(1, 6))], rows, coefficients_


def longley() -> tuple[list[str], list[list[float]], list[float]]:
    """Return names, rows and certified coefficients of the NIST set Longley."""
    names, *lines = csv.reader((NIST / "longley.csv").read_text().splitlines())
    certified = [
        *(-3482258.63459582, 15.0618722713733, -0.358191792925910e-01, -2.02022980381683),
        *(-1.03322686717359, -0.511041056535807e-01, 1829.15146461355),
    ]
    return names, [list(map(float, line)) for line in lines], certified


@pytest.mark.parametrize(
    ("table", "error"), [(wampler(1.0), 1e-8), (wampler(0.1), 1e-8), (longley(), 1e-11)], ids=["1", "2", "longley"]
)
def test_nist_sets_that_three_sites_hold_have_the_certified_coefficients(
    laboratory: Laboratory, table: tuple[list[str], list[list[float]], list[float]], error: float
) -> None:
    names, rows, certified = table
    files = []
    for site in range(3):
        content = "\n".join([",".join(names), *(",".join(map(repr, row)) for row in rows[site::3])]).encode()
        version = laboratory.train(content, "csv", f"site-{site}", targets=("y",))
        files.append(encode_for_merge(version, min_rows=5))

    merged = merge(laboratory, "all", *files, min_rows=5)

    found = list(coefficients(merged).values())
    assert_allclose(found, certified, rtol=error)


def test_no_row_is_lost_if_merges_and_updates_of_one_model_run_at_the_same_time(laboratory: Laboratory) -> None:
    train(laboratory, NORTH, "north")
    sites = [rows_of(seed, 100, "bcd") for seed in range(10, 14)]
    files = [exported(laboratory, train(laboratory, rows, f"site-{number}")) for number, rows in enumerate(sites)]
    updates = [rows_of(seed, 30, "bcd") for seed in range(20, 24)]

    with ThreadPoolExecutor(8) as pool:
        merges = [pool.submit(merge, laboratory, "north", content) for content in files]
        trainings = [pool.submit(train, laboratory, rows, "north", mode="update") for rows in updates]
        for future in (*merges, *trainings):
            future.result()

    current = laboratory.context.registry.current("north")
    every = [row for part in (NORTH, *sites, *updates) for row in part]
    assert_same(current, train(laboratory, every, "together"), SAMPLE.slice(1, 3), rtol=1e-11)
    assert current.card.version == 9


def test_a_version_made_meanwhile_is_the_base_of_the_merge(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first merge into a new model finds, when it publishes, that another one made the model."""
    content = exported(laboratory, train(laboratory, SOUTH, "south"))
    publish, calls = FolderPublisher.publish, []

    def overtaken(self: FolderPublisher, card: Any, *args: Any, **options: Any) -> Version:
        calls.append(options["expected"])
        if len(calls) == 1:
            train(laboratory, NORTH, "north")
        return publish(self, card, *args, **options)

    monkeypatch.setattr(FolderPublisher, "publish", overtaken)

    merged = merge(laboratory, "north", content)

    assert (calls[0], calls[-1]) == (None, 1)
    assert_same(merged, train(laboratory, NORTH + SOUTH, "together"))


def with_numbers(rows: list[str]) -> list[str]:
    """Return the rows with a number in place of the city."""
    return [
        ",".join([age, str(place % 9), *rest]) for place, (age, _, *rest) in enumerate(row.split(",") for row in rows)
    ]


@pytest.mark.parametrize(
    ("rows", "header", "reason"),
    [
        (with_numbers(SOUTH), HEADER, r'"city" is a category in the model and a number in File 1'),
        (SOUTH, HEADER.replace("age", "years"), "New features: years. Missing features: age"),
        (SOUTH, HEADER.replace("rent", "cost"), "New targets: cost"),
    ],
    ids=["kind", "feature", "target"],
)
def test_a_file_with_other_columns_is_refused_with_their_names(
    laboratory: Laboratory, rows: list[str], header: str, reason: str
) -> None:
    train(laboratory, NORTH, "north")
    south = train(laboratory, rows, "south", header=header, targets=tuple(header.split(",")[-2:]))

    with pytest.raises(InvalidInput, match=reason):
        merge(laboratory, "north", exported(laboratory, south, whole=True))


def test_a_file_is_refused_if_it_has_too_few_rows_or_is_sent_twice(laboratory: Laboratory) -> None:
    train(laboratory, NORTH, "north")
    small = exported(laboratory, train(laboratory, SOUTH[:19], "small"), whole=True)
    south = exported(laboratory, train(laboratory, SOUTH, "south"))

    with pytest.raises(InvalidInput, match=r"File 1 has 19 row\(s\)"):
        merge(laboratory, "north", small)
    with pytest.raises(InvalidInput, match="File 2 is the same as File 1"):
        merge(laboratory, "north", south, south)


def test_rows_that_are_not_in_the_model_cannot_be_taken_out(laboratory: Laboratory) -> None:
    train(laboratory, NORTH, "north")
    south = exported(laboratory, train(laboratory, SOUTH, "south"))
    others = exported(laboratory, train(laboratory, rows_of(9, 150, "bcd"), "others"))

    with pytest.raises(InvalidInput, match='"city" has levels in File 1 that the model does not have'):
        merge(laboratory, "north", south, mode="forget")
    with pytest.raises(InvalidInput, match="not among those"):
        merge(laboratory, "north", others, mode="forget")
    with pytest.raises(InvalidInput, match="no current version to forget"):
        merge(laboratory, "nothing", south, mode="forget")


def test_a_version_that_is_not_promoted_leaves_the_current_one(laboratory: Laboratory) -> None:
    train(laboratory, NORTH, "north")

    merged = merge(laboratory, "north", exported(laboratory, train(laboratory, SOUTH, "south")), promote="never")

    assert (merged.card.version, laboratory.context.registry.current_number("north")) == (2, 1)


@pytest.fixture(scope="module")
def two_sites(tmp_path_factory: pytest.TempPathFactory) -> tuple[Laboratory, list[bytes]]:
    """A model of all rows, and files of the southern ones, with and without ranges."""
    laboratory = Laboratory(tmp_path_factory.mktemp("changed"))
    train(laboratory, NORTH + SOUTH, "north")
    south = train(laboratory, SOUTH, "south")
    return laboratory, [exported(laboratory, south, whole=whole) for whole in (True, False)]


SPECIAL = [0.0, 1.0, -1.0, 2.0**-1000, 1e149, -1e149, 1e-300, 5e-324]
FACTORS = [1 + 1e-12, 1 - 1e-9, 1.01, -1.0, 2.0, 1e6, 1e-6]


@given(data=st.data())
@settings(max_examples=50)
def test_a_changed_file_is_refused_or_gives_finite_numbers(
    two_sites: tuple[Laboratory, list[bytes]], data: st.DataObject
) -> None:
    laboratory, contents = two_sites

    def change(card: dict[str, Any], tensors: Tensors) -> None:
        names = sorted(name for name in tensors if name.startswith("statistics."))
        for _ in range(data.draw(st.integers(1, 3))):
            tensor = tensors[data.draw(st.sampled_from(names))]
            index = data.draw(st.integers(0, tensor.size - 1))
            scaled = [float(tensor.flat[index]) * factor for factor in FACTORS]
            tensor.flat[index] = data.draw(st.sampled_from([*SPECIAL, *scaled]))
        card["untracked"] = data.draw(st.booleans())

    changed = rewritten(data.draw(st.sampled_from(contents)), change)
    mode: Literal["update", "forget"] = data.draw(st.sampled_from(["update", "forget"]))
    try:
        merged = merge(laboratory, "north", changed, mode=mode, promote="never")
    except LinserveError as error:
        assert error.message  # noqa: PT017 - both outcomes are possible
        assert not isinstance(error, Unavailable)  # noqa: PT017
    else:
        assert np.isfinite(merged.model.coef).all()
        assert np.isfinite(merged.model.intercept).all()
