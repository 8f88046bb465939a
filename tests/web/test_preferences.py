"""The `Prefer` header."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.web.preferences import Preferences, preferences


@pytest.mark.parametrize(
    ("fields", "wait", "respond_async"),
    [
        ([], None, False),
        ([""], None, False),
        (["wait=10"], 10, False),
        (["WAIT = 10"], 10, False),
        (['wait="10"'], 10, False),
        (['wait="1\\0"'], 10, False),
        (["respond-async"], None, True),
        (["respond-async, wait=10"], 10, True),
        (["respond-async", "wait=10"], 10, True),
        (["return=minimal", "handling=lenient, wait=3"], 3, False),
        (["wait=1", "wait=2"], 1, False),
        (["wait=1, wait=2"], 1, False),
        (["wait=x", "wait=2"], None, False),  # The first counts, and it is not valid.
        (["wait=10; foo=1; bar", "respond-async; wait=5"], 10, True),
        (["foo; wait=5"], None, False),  # a parameter of another preference
        (['foo="a, wait=5, b"; bar="c, wait=6", wait=7'], 7, False),
        (['foo="a\\", wait=5", wait=7'], 7, False),
        (["waiting=10, await=9"], None, False),
        (["wait"], None, False),
        (["wait="], None, False),
        (['wait=""'], None, False),
        (["wait=-1"], None, False),
        (["wait=1.5"], None, False),
        (["@ wait=1, wait=2"], 2, False),  # A malformed one is ignored.
        (['foo="open, wait=2'], None, False),
        ([",, ,wait=2,"], 2, False),
        (["wait=2;"], 2, False),
        (["wait=9" + "9" * 400], float("inf"), False),
    ],
)
def test_preferences_are_parsed_according_to_rfc_7240(
    fields: list[str], wait: float | None, *, respond_async: bool
) -> None:
    assert preferences(fields) == Preferences(wait, respond_async)


@given(st.lists(st.text(alphabet='wait=10,;" \\\tfo-', max_size=40), max_size=4))
def test_several_fields_are_equivalent_to_one_list(fields: list[str]) -> None:
    whole = [field for field in fields if field.count('"') % 2 == 0 and "\\" not in field]
    assert preferences(whole) == preferences([",".join(whole)])


@pytest.mark.parametrize(
    ("preferred", "ended", "applied"),
    [
        (Preferences(), False, None),
        (Preferences(10), True, "wait=5"),
        (Preferences(10, respond_async=True), True, "wait=5"),
        (Preferences(10, respond_async=True), False, "respond-async, wait=5"),
        (Preferences(respond_async=True), False, "respond-async"),
    ],
)
def test_preference_applied_lists_the_applied_ones(preferred: Preferences, *, ended: bool, applied: str | None) -> None:
    assert preferred.applied(5, ended=ended) == applied


def test_hostile_field_is_parsed_in_linear_time() -> None:
    for piece in ('"', "a;", "a=;", ";", " ", "a ", '"\\', ', "', "a=\t", '"a" '):
        preferences([piece * (32_000 // len(piece))])
