"""Trainings of tables with words, gaps and dates: the schema comes first, and no level is lost."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from starlette.datastructures import QueryParams

from app.errors import InvalidInput
from app.registry.folder.publisher import FolderPublisher
from app.registry.model_card import ModelCard
from app.training.pipeline import TrainerContext, train
from app.training.planner import plan_file
from app.training.progress import Progress, ProgressReporter
from app.training.uploads import UploadStore
from app.web.schemas.train_query import from_query

CITIES = ("lima", "oslo", "rome")
RANDOM = np.random.default_rng(14)
ROWS = [(CITIES[row % 3], *RANDOM.normal(size=3).round(3)) for row in range(60)]


def table(rows: list[Any], names: str = "city,a,b,y") -> bytes:
    return "\n".join([names, *(",".join(map(str, row)) for row in rows)]).encode() + b"\n"


class Tables:
    """The versions of one model that is trained from CSV."""

    def __init__(self, folder: Path) -> None:
        (folder / "models").mkdir()
        self.registry = FolderPublisher(folder / "models")
        self.context = TrainerContext(self.registry, UploadStore(folder / "spool"), folder / "checkpoints")

    def train(
        self,
        content: bytes,
        query: str = "",
        *,
        at: Callable[[Progress], object] = lambda _: None,
        model: str = "m",
        form: str = "csv",
    ) -> ModelCard:
        upload = self.context.spool.new()
        with self.context.spool.open_new(upload) as file:
            file.write(content)
        options = from_query(QueryParams(query))
        draft = options.to_request(default_model=model, upload=upload, format=form, fingerprint="")
        request = plan_file(draft, self.context.spool.path(upload), self.registry, 1 << 30)

        def report(progress: Progress, _: object) -> None:
            at(progress)

        return train(request, None, self.context, ProgressReporter(report, lambda: False))

    def coefficients(self, number: int, model: str = "m") -> dict[str, float]:
        found = self.registry.version(model, number).model
        return {"intercept": found.intercept[0], **dict(zip(found.columns, found.coef[0].tolist(), strict=True))}


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path)


def design(rows: list[Any], levels: tuple[str, ...]) -> Any:
    """The coefficients of rows by a design that is made here, with the first level as reference."""
    x = np.array([[1.0, *(float(row[0] == level) for level in levels[1:]), row[1], row[2]] for row in rows])
    return np.linalg.lstsq(x, np.array([row[3] for row in rows]), rcond=None)[0]


def test_words_become_indicators_of_all_levels_but_the_first(tables: Tables) -> None:
    card = tables.train(table(ROWS), "targets=y")
    assert card.features == ("city", "a", "b")
    assert card.columns == ("city[oslo]", "city[rome]", "a", "b")
    assert_allclose(list(tables.coefficients(1).values()), design(ROWS, CITIES), rtol=1e-9)


def test_an_update_with_a_new_level_equals_a_training_on_all_rows(tables: Tables) -> None:
    more = [("bonn", *row[1:]) for row in ROWS[:7]] + ROWS[20:30]
    tables.train(table(ROWS), "targets=y")
    card = tables.train(table(more), "mode=update")
    assert card.columns == ("city[oslo]", "city[rome]", "city[bonn]", "a", "b")
    expected = design(ROWS + more, (*CITIES, "bonn"))
    assert_allclose(list(tables.coefficients(2).values()), expected, rtol=1e-9)
    assert any("city" in warning for warning in card.warnings)


def test_a_forget_of_the_last_rows_of_a_level_warns_that_it_is_not_identifiable(tables: Tables) -> None:
    more = [("bonn", *row[1:]) for row in ROWS[:7]]
    tables.train(table(ROWS), "targets=y")
    tables.train(table(more), "mode=update")
    card = tables.train(table(more), "mode=forget")
    assert any('"city[bonn]": it is not identifiable' in warning for warning in card.warnings)
    found = tables.coefficients(3)
    assert found.pop("city[bonn]") == 0
    assert_allclose(list(found.values()), design(ROWS, CITIES), rtol=1e-7)


def test_a_forget_with_an_unknown_level_is_refused(tables: Tables) -> None:
    tables.train(table(ROWS), "targets=y")
    with pytest.raises(InvalidInput, match="city"):
        tables.train(table([("bonn", *ROWS[0][1:])]), "mode=forget")


def once_publishing(act: Callable[[], object]) -> Callable[[Progress], None]:
    """Do something when a job is about to publish for the first time."""
    waiting = [act]

    def at(progress: Progress) -> None:
        if progress.phase == "publishing" and waiting:
            waiting.pop()()

    return at


@pytest.mark.parametrize("folds", ["", "&folds=3"])
def test_concurrent_updates_with_different_new_levels_keep_both(tables: Tables, folds: str) -> None:
    bonn = [("bonn", *row[1:]) for row in ROWS[:9]]
    kiev = [("kiev", *row[1:]) for row in ROWS[3:12]]
    tables.train(table(ROWS), f"targets=y{folds}")
    overtaking = once_publishing(lambda: tables.train(table(bonn), f"mode=update{folds}"))
    card = tables.train(table(kiev), f"mode=update{folds}", at=overtaking)
    assert (card.version, card.parent) == (3, 2)
    assert card.columns == ("city[oslo]", "city[rome]", "city[bonn]", "city[kiev]", "a", "b")
    expected = design(ROWS + bonn + kiev, (*CITIES, "bonn", "kiev"))
    assert_allclose(list(tables.coefficients(3).values()), expected, rtol=1e-9)
    if folds:
        assert card.validation is not None
        assert (card.validation.rows, card.validation.stored) == (78, True)


def test_the_rows_that_replace_a_version_are_read_by_its_schema(tables: Tables) -> None:
    tables.train(table(ROWS), "targets=y&reference=city:rome")
    again = tables.train(table([("bonn", *row[1:]) if row[0] == "lima" else row for row in ROWS]))
    assert again.columns == ("city[bonn]", "city[oslo]", "a", "b")  # the reference stays
    with pytest.raises(InvalidInput, match="schema=infer"):
        tables.train(table([(row[0], "high", *row[2:]) for row in ROWS]))
    inferred = tables.train(table([(row[0], f"{row[0]}!", *row[2:]) for row in ROWS]), "schema=infer&targets=y")
    assert inferred.columns == ("city[oslo]", "city[rome]", "a[oslo!]", "a[rome!]", "b")


def test_a_replacement_that_leaves_out_many_more_rows_fails_with_the_gaps_by_column(tables: Tables) -> None:
    with_gaps = [("" if row < 15 else cells[0], *cells[1:]) for row, cells in enumerate(ROWS)]
    tables.train(table(ROWS), "targets=y")
    with pytest.raises(InvalidInput, match=r'15 of 60 rows .* Gaps by column: "city" 15.*missing=drop'):
        tables.train(table(with_gaps))
    dropped = tables.train(table(with_gaps), "missing=drop")
    assert (dropped.dropped_rows, dropped.gaps, dropped.rows) == (15, {"city": 15}, 45)
    assert tables.train(table(with_gaps)).dropped_rows == 15  # as many as in the version before


def test_an_update_adds_its_rows_to_those_whose_share_of_gaps_is_compared(tables: Tables) -> None:
    half = [(city, "" if row % 2 else a, b, y) for row, (city, a, b, y) in enumerate(ROWS)]
    tables.train(table(half), "targets=y")
    tables.train(table(ROWS[:30]), "mode=update")

    card = tables.train(table(half), "targets=y")  # 50 % now, and 30 of 90 rows before

    kept = tables.registry.version("m", 2).card.schema_of_rows
    assert (kept.rows, kept.incomplete_rows) == (90, 30)
    assert card.dropped_rows == 30


def test_too_few_complete_rows_fail_with_the_columns_to_drop(tables: Tables) -> None:
    empty = [(*row[:2], "", row[3]) for row in ROWS[:57]] + ROWS[57:]
    with pytest.raises(InvalidInput, match=r"3 complete rows for 5 coefficients.*`drop=b` would keep 60 rows"):
        tables.train(table(empty), "targets=y")
    assert tables.train(table(empty), "targets=y&drop=b").rows == 60


def test_an_indicator_of_gaps_keeps_its_constant_in_an_update(tables: Tables) -> None:
    gaps = [(row[0], "", *row[2:]) if number % 9 == 0 else row for number, row in enumerate(ROWS)]
    first = tables.train(table(gaps), "targets=y&missing=indicator")
    assert first.columns == ("city[oslo]", "city[rome]", "a", "a[missing]", "b")
    assert first.gaps == {"a": 7}
    second = tables.train(table([(row[0], "", *row[2:]) for row in ROWS[:9]]), "mode=update")
    assert (second.rows, second.dropped_rows) == (69, 0)
    fills = [card.schema_of_rows.features[1].fill for card in (first, second)]
    assert fills[0] == fills[1] == pytest.approx(np.mean([row[1] for row in gaps if row[1] != ""]))


def test_a_version_is_compared_with_one_of_other_levels(tables: Tables) -> None:
    tables.train(table(ROWS), "targets=y")
    bonn = [("bonn", *row[1:]) if row[0] == "lima" else row for row in ROWS]
    card = tables.train(table(bonn), "promote=if_better&unseen=true&folds=5")
    assert card.beats_current is not None


def test_a_descent_starts_from_the_coefficients_of_a_version_with_other_levels(tables: Tables) -> None:
    tables.train(table(ROWS), "targets=y")
    old = tables.coefficients(1)
    oslo_and_bonn = [("oslo", *row[1:]) if row[0] == "lima" else ("bonn", *row[1:]) for row in ROWS]
    query = "solver=gradient_descent&epochs=1&learning_rate=1e-12&start=current&device=cpu"
    tables.train(table(oslo_and_bonn), query)
    # "bonn" is not known, and counts as the old reference level; now it is the reference.
    expected = {"intercept": old["intercept"], "city[oslo]": old["city[oslo]"], "a": old["a"], "b": old["b"]}
    assert tables.coefficients(2) == pytest.approx(expected, rel=1e-6)


def test_a_category_is_a_term_of_its_own_only(tables: Tables) -> None:
    card = tables.train(table(ROWS), "targets=y&terms=a,a^2,city")
    assert card.columns == ("a", "a^2", "city[oslo]", "city[rome]")
    assert card.blocks == (slice(2, 4),)
    with pytest.raises(InvalidInput, match="category, which cannot be in a power or a product") as refused:
        tables.train(table(ROWS), "targets=y&terms=a,a:city", model="other")
    assert refused.value.details[0].pointer == "/terms/1"


def test_a_later_row_that_contradicts_the_first_ones_restarts_the_reading(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.data.columns.plan.SAMPLE_BYTES", 1)
    monkeypatch.setattr("app.data.batch.BATCH_BYTES", 1)
    numbers = [(row, *cells[1:]) for row, cells in enumerate(ROWS * 20)]
    late = [*numbers, ("?", *ROWS[0][1:])]
    card = tables.train(table(late), "targets=y")
    assert (card.rows, card.gaps) == (1200, {"city": 1})


def test_index_columns_and_identifiers_are_left_out_of_later_tables_too(tables: Tables) -> None:
    named = table([(row, f"n{row}", *cells) for row, cells in enumerate(ROWS)], ",name,city,a,b,y")
    first = tables.train(named, "targets=y")
    assert first.features == ("city", "a", "b")
    assert {column.name: column.reason for column in first.schema_of_rows.left_out} == {
        "": "index",
        "name": "identifier",
    }
    assert tables.train(named).features == ("city", "a", "b")
    assert tables.train(table(ROWS), "mode=update").rows == 120
    kept = tables.train(named, "targets=y&features=a,name,b", model="kept")
    assert kept.features == ("a", "name", "b")


def test_a_target_of_true_and_false_is_read_as_1_and_0_with_a_warning(tables: Tables) -> None:
    card = tables.train(table([(*row[:3], str(row[3] > 0)) for row in ROWS]), "targets=y")
    expected = design([(*row[:3], float(row[3] > 0)) for row in ROWS], CITIES)
    assert_allclose(list(tables.coefficients(1).values()), expected, rtol=1e-9)
    assert any("linear probability model" in warning for warning in card.warnings)


def test_an_update_in_another_format_keeps_how_text_was_divided(tables: Tables) -> None:
    semicolons = table(ROWS).replace(b",", b";").replace(b".", b",")
    tables.train(semicolons, "targets=y")
    first = tables.registry.version("m", 1).card.schema_of_rows
    assert (first.dialect.sep, first.dialect.decimal) == (";", ",")
    lines = [dict(zip(("city", "a", "b", "y"), map(_plain, row), strict=True)) for row in ROWS[:9]]
    tables.train(b"".join(map(_line, lines)), "mode=update", form="ndjson")
    second = tables.registry.version("m", 2).card.schema_of_rows
    assert (second.dialect, second.features) == (first.dialect, first.features)
    assert tables.train(semicolons, "mode=update").rows == 129


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else float(value)


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"
