"""Options of a table that contradict each other, its columns or the current version: refused before the job."""

from pathlib import Path

import pytest
from training.test_tables import ROWS, Tables, table

from app.errors import InvalidInput

PENGUINS_RAW = Path(__file__).parents[1] / "tables" / "real" / "penguins-raw.csv"


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path)


@pytest.mark.parametrize("sign", ["1", "$2", "e", "E", "%2B", "-", ".", "%20"])
def test_parts_of_numbers_are_no_signs_to_strip(tables: Tables, sign: str) -> None:
    with pytest.raises(InvalidInput, match=r"strip: A sign to remove may not have a digit"):
        tables.train(table(ROWS), f"targets=y&strip={sign}")


@pytest.mark.parametrize(
    "query", ["decimal=,&thousands=comma", 'thousands=,&columns={"a":{"decimal":","}}', "decimal=point&thousands=."]
)
def test_decimal_and_thousands_are_two_signs(tables: Tables, query: str) -> None:
    with pytest.raises(InvalidInput, match="`decimal` and `thousands` are the same sign"):
        tables.train(table(ROWS), f"targets=y&{query}")


@pytest.mark.parametrize(
    ("query", "use"),
    [
        ("drop=y", "is a target"),
        ("drop=a&features=a,city", "is also named in `features`"),
        ("drop=b&weight=b", "holds the weights"),
        ("drop=city&groups=city&folds=3", "holds the groups"),
    ],
)
def test_a_column_that_is_used_cannot_be_dropped(tables: Tables, query: str, use: str) -> None:
    with pytest.raises(InvalidInput, match=f"`drop` names the column .* which {use}"):
        tables.train(table(ROWS), f"targets=y&{query}")


def test_a_target_of_the_current_version_cannot_be_dropped(tables: Tables) -> None:
    tables.train(table(ROWS), "targets=y")
    with pytest.raises(InvalidInput, match='`drop` names the column "y", which is a target'):
        tables.train(table(ROWS), "drop=y")


@pytest.mark.parametrize("mode", ["update", "forget"])
def test_columns_that_the_current_version_does_not_have_are_named(tables: Tables, mode: str) -> None:
    tables.train(table(ROWS), "targets=y")
    with pytest.raises(InvalidInput, match=r"It has features: city, a, b; targets: y\. New features: colour\."):
        tables.train(table([(*row, 1) for row in ROWS], "city,a,b,y,colour"), f"mode={mode}")
    with pytest.raises(InvalidInput, match=r"Missing features: city\."):
        tables.train(table([row[1:] for row in ROWS], "a,b,y"), f"mode={mode}")


def test_columns_without_any_value_are_named_with_all_coefficients(tables: Tables) -> None:
    without_a = table([(city, "", b, y) for city, _, b, y in ROWS])
    with pytest.raises(
        InvalidInput, match=r'0 complete rows for 5 coefficients; gaps by column: "a" 60\. `drop=a` would keep 60 rows'
    ):
        tables.train(without_a, "targets=y")
    with pytest.raises(InvalidInput, match=r'gaps by column: "y" 60\. Fill the gaps in, or send more rows\.'):
        tables.train(table([(*row[:3], "NA") for row in ROWS]), "targets=y")


def test_a_real_table_trains_on_its_few_complete_rows(tables: Tables) -> None:
    card = tables.train(PENGUINS_RAW.read_bytes(), "targets=Body Mass (g)")
    assert (card.rows, card.dropped_rows) == (34, 310)
    assert any('"Comments" 290' in warning for warning in card.warnings)


def test_each_warning_about_the_columns_appears_once(tables: Tables) -> None:
    rows = [(city, a if place % 5 else "", b, place % 3 == 0) for place, (city, a, b, _) in enumerate(ROWS)]
    warnings = tables.train(table(rows), "targets=y&missing=indicator").warnings
    assert sum("indicator" in warning for warning in warnings) == 1
    assert sum("linear probability model" in warning for warning in warnings) == 1
