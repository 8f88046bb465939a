import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.data.names import (
    MAX_LISTED,
    MAX_NAME_LENGTH,
    MAX_NAMES,
    check_names,
    extra_columns,
    instead,
    listed,
    missing_columns,
    nearest,
    shown,
    spelt,
)
from app.errors import FieldError, InvalidInput

NFC = "größe"
NFD = unicodedata.normalize("NFD", NFC)


@given(st.text(max_size=300))
def test_a_name_is_shown_in_visible_characters_and_cut(name: str) -> None:
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


def test_all_missing_columns_are_named_with_the_columns_of_the_file() -> None:
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


def faults(features: list[str], targets: list[str]) -> list[FieldError]:
    with pytest.raises(InvalidInput) as refused:
        check_names(features, targets)
    return list(refused.value.details)


def places(features: list[str], targets: list[str]) -> list[str | None]:
    return [detail.pointer for detail in faults(features, targets)]


@pytest.mark.parametrize(
    "name", ["temp", "Größe in m²", "a b", "温度", "x" * MAX_NAME_LENGTH, "/~", '"', "mse ", "Intercept", "0"]
)
def test_printable_names_are_fine_for_features_and_targets(name: str) -> None:
    check_names([name], ["y"])
    check_names(["x"], [name])


@pytest.mark.parametrize(
    "name", ["", "x" * (MAX_NAME_LENGTH + 1), "a\nb", "a\tb", "\0", "a\x1b[31m", "\u202e", "\ud800", "a\u2028b"]
)
def test_empty_long_and_unprintable_names_are_refused_with_their_place(name: str) -> None:
    assert places(["x", name], ["y"]) == ["/feature_names/1"]
    assert places(["x"], ["y", "z", name]) == ["/target_names/2"]


def test_there_is_at_least_one_feature_and_one_target() -> None:
    assert faults([], []) == [
        FieldError("At least one feature is needed.", pointer="/feature_names"),
        FieldError("At least one target is needed.", pointer="/target_names"),
    ]


def test_names_that_a_card_uses_itself_are_reserved() -> None:
    assert places(["intercept"], ["mse", "optimum_mse"]) == ["/feature_names/0", "/target_names/0", "/target_names/1"]
    check_names(["mse", "optimum_mse"], ["intercept"])


def test_the_same_name_twice_is_refused_at_both_places() -> None:
    assert places(["a", "b", "a"], ["y"]) == ["/feature_names/0", "/feature_names/2"]
    assert places(["a"], ["y", "y"]) == ["/target_names/0", "/target_names/1"]


def test_a_column_cannot_be_feature_and_target_at_once() -> None:
    assert faults(["a", "b"], ["b", "y"]) == [
        FieldError('A column cannot be both a feature and a target: "b". Leave it out of one.', pointer="/target_names")
    ]


def test_the_number_of_names_is_limited() -> None:
    many = [f"x{index}" for index in range(MAX_NAMES)]
    check_names(many, ["y"])
    assert faults([*many, "one more"], ["y"]) == [
        FieldError(f"At most {MAX_NAMES} features are possible.", pointer="/feature_names")
    ]
    assert places(["x"], [f"y{index}" for index in range(MAX_NAMES + 1)]) == ["/target_names"]


def test_no_message_repeats_a_name_that_is_refused() -> None:
    assert all("\x1b" not in detail.message for detail in faults(["\x1b[31m"], ["\x1b[31m"]))
