import pytest

from app.data.names import MAX_NAME_LENGTH, MAX_NAMES, check_names
from app.errors import FieldError, InvalidInput


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


def test_names_that_a_card_uses_itself_are_reserved_where_they_would_clash() -> None:
    assert places(["intercept"], ["mse", "optimum_mse"]) == ["/feature_names/0", "/target_names/0", "/target_names/1"]
    check_names(["mse", "optimum_mse"], ["intercept"])


def test_the_same_name_twice_is_refused_at_both_places() -> None:
    assert places(["a", "b", "a"], ["y"]) == ["/feature_names/0", "/feature_names/2"]
    assert places(["a"], ["y", "y"]) == ["/target_names/0", "/target_names/1"]


def test_a_column_is_no_feature_and_target_at_once() -> None:
    assert faults(["a", "b"], ["b", "y"]) == [
        FieldError('A column cannot be both a feature and a target: "b". Leave it out of one.', pointer="/target_names")
    ]


def test_there_are_limits_to_the_number_of_names() -> None:
    many = [f"x{index}" for index in range(MAX_NAMES)]
    check_names(many, ["y"])
    assert faults([*many, "one more"], ["y"]) == [
        FieldError(f"At most {MAX_NAMES} features are possible.", pointer="/feature_names")
    ]
    assert places(["x"], [f"y{index}" for index in range(MAX_NAMES + 1)]) == ["/target_names"]


def test_no_message_repeats_a_name_that_is_refused() -> None:
    assert all("\x1b" not in detail.message for detail in faults(["\x1b[31m"], ["\x1b[31m"]))
