import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.data.name_hints import MAX_LISTED, extra_columns, instead, listed, missing_columns, nearest, shown, spelt

NFC = "größe"
NFD = unicodedata.normalize("NFD", NFC)


@given(st.text(max_size=300))
def test_a_name_is_shown_in_characters_that_can_be_seen_and_cut(name: str) -> None:
    for text in (shown(name), spelt(name)):
        assert text.isprintable()
        assert len(text) <= 100 * len("\\U0001f600") + len('""...')
        text.encode()
    assert spelt(name).isascii()
    assert shown(name).endswith('..."') == (len(name) > 100 or "\n" in name or name.endswith("..."))


def test_many_names_are_listed_up_to_twenty() -> None:
    assert listed(["a", "b"]) == '"a", "b"'
    assert listed([f"x{index}" for index in range(25)]).endswith('"x19" and 5 more')


@pytest.mark.parametrize(
    ("given", "known", "found"),
    [
        ("rainfal", ["temp", "rainfall"], "rainfall"),
        ("TEMP", ["temp", "rainfall"], "temp"),
        ("humidity", ["temp", "rainfall"], None),
        ("x" * 500, ["x" * 128], None),
        ("a", [], None),
    ],
)
def test_the_nearest_name_is_found(given: str, known: list[str], found: str | None) -> None:
    assert nearest(given, known) == found


@pytest.mark.parametrize(
    ("present", "hint"),
    [
        (" größe", "has that name with spaces around it"),
        ("GRÖSSE", "differs in capitals or spaces"),
        ("gr\u200böße", "U+200B (zero width space) at position 3"),
        ("größe\u00a0", "U+00A0 (no-break space) at position 6"),
        ("\ufeffgröße", "U+FEFF (zero width no-break space) at position 1"),
        (NFD, 'Column 2, named "gro\\u0308\\u00dfe", looks the same as "gr\\u00f6\\u00dfe", but is composed'),
        ("grösse", "differs in capitals or spaces"),
        ("gröe", 'Column 2, named "gröe", is similar'),
    ],
)
def test_a_column_that_was_meant_is_named_with_its_place(present: str, hint: str) -> None:
    error = missing_columns([NFC], ["x", present])
    assert hint in error.details[0].message
    assert error.details[0].row == 1


def test_columns_that_are_missing_are_named_all_with_what_the_file_has() -> None:
    error = missing_columns(["a", "b"], ["p", "q", "r"])
    assert error.message.startswith(
        'Columns are missing: columns "a", "b" expected, but the file has 3 columns, "p", "q", "r".'
    )
    assert [detail.message for detail in error.details] == ['There is no column "a".', 'There is no column "b".']
    assert len(missing_columns([f"x{index}" for index in range(50)], ["p"]).details) == MAX_LISTED


def test_columns_that_are_not_features_are_named_with_their_places() -> None:
    error = extra_columns(["place", "id"], ["place", "temp", "id"], ["temp"])
    assert [detail.message for detail in error.details] == [
        'Column 1, "place", is not a feature.',
        'Column 3, "id", is not a feature.',
    ]


def test_a_name_in_an_object_has_no_number() -> None:
    assert instead("temp", ["Temp"]) == ' "Temp" differs in capitals or spaces. Use the same spelling.'
    assert instead("temp", ["wind"]) == ""
