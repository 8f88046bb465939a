"""Charts: scales keep order and stay in their place, and no text or number can break the drawing."""

import math
import re
from operator import itemgetter
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from app.pages.charts import svg
from app.pages.charts.drift import Strip, strips
from app.pages.charts.forest import Estimate, forest
from app.pages.charts.residuals import bars, heat_map, partial_residuals, quantiles
from app.pages.charts.waterfall import Contribution, largest, waterfall, without_noise
from app.pages.lineage import MAX_LANES, rails

HOSTILE = """<script>alert(1)</script>" onload="alert(2)' & ]]> é"""
MINUS = "\N{MINUS SIGN}"
LARGE = 1e100
NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
# Characters that XML cannot have are replaced by the browser's HTML parser, which draws the pages.
TEXTS = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\ufffe\uffff"), max_size=60)


def parsed(chart: Markup) -> ET.Element:
    """Return the drawing, after checking that all it contains can be drawn and nothing in it acts."""
    root = ET.fromstring(str(chart))  # noqa: S314 - made by this service
    for element in root.iter():
        assert element.tag.rpartition("}")[2] in ("svg", "desc", "g", "line", "path", "rect", "text", "title")
        for name, value in element.attrib.items():
            assert not name.startswith("on")
            assert name not in ("style", "href")
            if name not in ("aria-label", "class", "role", "text-anchor", "preserveAspectRatio", "aria-hidden"):
                assert not re.search("nan|inf", value, re.IGNORECASE), (name, value)
    return root


def check_named(chart: Markup, name: str) -> None:
    root = parsed(chart)
    assert root.get("role") == "img"
    assert (root.get("aria-label") or "").startswith(name)


@given(st.lists(NUMBERS, max_size=20), st.sampled_from([svg.LinearScale, svg.LogScale]))
def test_a_scale_keeps_the_order_of_values_and_stays_between_its_ends(
    values: list[float], kind: type[svg.LinearScale | svg.LogScale]
) -> None:
    scale = kind.over(values, 50.0, 600.0)
    places = [scale(value) for value in sorted(value for value in values if not math.isnan(value))]

    assert places == sorted(places)
    assert all(50.0 <= place <= 600.0 for place in places)


@given(st.lists(NUMBERS, max_size=20), st.integers(1, 12), st.sampled_from([svg.LinearScale, svg.LogScale]))
def test_ticks_ascend_within_the_scale_and_their_labels_differ(
    values: list[float], count: int, kind: type[svg.LinearScale | svg.LogScale]
) -> None:
    scale = kind.over(values, 0.0, 100.0)
    ticks, labels = scale.ticks(count), scale.labels(count)

    assert ticks == sorted(set(ticks))
    assert len(ticks) <= 3 * count + 6
    reach = (scale.high - scale.low) * 1e-6
    assert all(scale.low - reach <= tick <= scale.high + reach for tick in ticks)
    assert len(set(labels)) == len(labels) == len(ticks)
    assert all(len(label) < 30 for label in labels)


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0, 10, ["0", "2", "4", "6", "8", "10"]),
        (-1, 1, ["{-}1.0", "{-}0.5", "0.0", "0.5", "1.0"]),
        (0, 0.3, ["0.0", "0.1", "0.2", "0.3"]),
        (17, 136, ["25", "50", "75", "100", "125"]),
        (0, 3e6, ["0", "1e6", "2e6", "3e6"]),
    ],
)
def test_ticks_are_round(low: float, high: float, labels: list[str]) -> None:
    assert svg.LinearScale(low, high, 0, 100).labels() == [label.replace("{-}", MINUS) for label in labels]


def test_a_log_scale_labels_powers_of_ten() -> None:
    assert svg.LogScale(1e-3, 1e4, 0, 100).labels(8) == ["0.001", "0.01", "0.1", "1", "10", "100", "1000", "10000"]
    assert svg.LogScale(0.9, 25, 0, 100).labels() == ["1", "2", "5", "10", "20"]


@given(TEXTS, TEXTS, st.lists(st.tuples(TEXTS, NUMBERS, NUMBERS, NUMBERS), max_size=8))
def test_no_text_and_no_number_breaks_a_forest_plot(
    name: str, label: str, rows: list[tuple[str, float, float, float]]
) -> None:
    estimates = [Estimate(*row) for row in rows] + [Estimate(HOSTILE, 1.0)]

    check_named(forest(estimates, name, label), name)


@given(TEXTS, FINITE, st.lists(st.tuples(TEXTS, FINITE), max_size=20), FINITE)
def test_no_text_and_no_number_breaks_a_waterfall(
    name: str, baseline: float, parts: list[tuple[str, float]], prediction: float
) -> None:
    steps = largest([Contribution(*part) for part in parts], 6)

    assert len(steps) <= 6
    if all(abs(value) < LARGE for _, value in parts):
        sizes = [abs(value) for _, value in parts]
        expected = pytest.approx(math.fsum(value for _, value in parts), abs=1e-9 * sum(sizes) + 1e-300)
        assert sum(step.value for step in steps) == expected
    check_named(waterfall(baseline, steps, prediction, name), name)


@given(TEXTS, st.lists(FINITE, min_size=2, max_size=9, unique=True).map(sorted), st.data())
def test_no_text_and_no_number_breaks_a_chart_of_residuals(name: str, edges: list[float], data: st.DataObject) -> None:
    bins = len(edges) - 1
    counts = data.draw(st.lists(st.integers(0, 10**9), min_size=bins, max_size=bins))
    means = data.draw(st.lists(st.none() | FINITE, min_size=bins, max_size=bins))

    check_named(heat_map(edges, edges, [counts] * bins, name, (name, HOSTILE)), name)
    check_named(bars(edges, counts, name, HOSTILE, threshold=edges[0]), name)
    check_named(quantiles(edges, edges[::-1], name), name)
    check_named(partial_residuals(edges, means, HOSTILE), "Partial residuals of")
    check_named(strips([Strip(HOSTILE, edges[0], drifted=True)], name, HOSTILE, symmetric=True), name)


def test_a_rounding_error_is_no_contribution() -> None:
    parts = [Contribution("area", 410.3), Contribution("rooms", -2.1e-15), Contribution("floor", 1e-6)]
    assert [part.value for part in without_noise(parts, 999.4)] == [410.3, 0, 1e-6]
    assert [part.value for part in without_noise([Contribution("area", 1e-15)], 0)] == [1e-15]


def test_a_hostile_name_is_text() -> None:
    root = parsed(forest([Estimate(HOSTILE, 1.0, 0.5, 1.5)], HOSTILE, HOSTILE))

    assert HOSTILE in [element.text for element in root.iter() if element.tag.endswith("title")]
    assert HOSTILE in (root.get("aria-label") or "")


def test_a_heat_map_of_2500_cells_is_small() -> None:
    edges = [float(edge) for edge in range(51)]

    assert len(heat_map(edges, edges, [[x * y for y in range(50)] for x in range(50)], "Map", ("x", "y"))) < 70_000


@given(st.lists(st.tuples(st.integers(1, 60), st.none() | st.integers(1, 59)), unique_by=itemgetter(0), max_size=40))
def test_every_version_has_its_place_in_the_lineage(versions: list[tuple[int, int | None]]) -> None:
    rows = [
        (number, parent if parent is not None and parent < number else None)
        for number, parent in sorted(versions, reverse=True)
    ]
    drawn, lanes = rails(rows)

    assert len(drawn) == len(rows)
    assert 1 <= lanes <= MAX_LANES
    for rail in drawn:
        assert parsed(rail).get("aria-hidden") == "true"
