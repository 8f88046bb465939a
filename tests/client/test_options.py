"""The options of the client are those of the HTTP API, in a query and in JSON."""

from typing import Any, get_type_hints

import pytest

from app.data.formats import ALIASES, BY_SUFFIX
from app.main import create_app
from app.web.query import split_names
from linserve import Client, _options
from linserve._bodies import MEDIA_TYPES, FormBody, body_of_source
from linserve._options import given, in_json, in_query
from linserve._steps import BytesBody


@pytest.fixture(scope="module")
def paths() -> dict[str, Any]:
    found: dict[str, Any] = create_app().openapi()["paths"]
    return found


def query(paths: dict[str, Any], path: str) -> set[str]:
    return {option["name"] for option in paths[path]["post"]["parameters"] if option["in"] == "query"}


def arguments(method: Any, *typed: type) -> set[str]:
    """Return the names of the keyword arguments of a method."""
    own = {*method.__kwdefaults__} - {"format", "wait", "idempotency_key", "output", "output_format"}
    return own.union(*(get_type_hints(options) for options in typed))


def test_every_option_of_a_training_is_an_argument(paths: dict[str, Any]) -> None:
    train = arguments(Client.train, _options.TrainingOptions)
    others = arguments(Client.update, _options.CommonTrainingOptions)
    others |= arguments(Client.forget, _options.CommonTrainingOptions)

    assert train | others | {"mode"} == query(paths, "/train")


def test_every_option_of_a_prediction_is_an_argument(paths: dict[str, Any]) -> None:
    of_client = {"model", "version", "alias", "min_version", "sticky", "explain", "extrapolation"}

    assert arguments(Client.predict, _options.PredictionOptions) == query(paths, "/predict") | of_client


def test_every_option_of_an_evaluation_is_an_argument(paths: dict[str, Any]) -> None:
    path = "/models/{model}/evaluate"

    assert arguments(Client.evaluate, _options.EvaluationOptions) == query(paths, path) | {"version"}


def test_every_option_of_a_merge_is_an_argument(paths: dict[str, Any]) -> None:
    assert arguments(Client.merge) == query(paths, "/models/{model}/merge")


def test_every_extension_of_the_service_has_its_media_type() -> None:
    for suffix, table_format in BY_SUFFIX.items():
        media_type = MEDIA_TYPES[suffix]
        assert ALIASES.get(media_type, media_type) == table_format.media_type, suffix


@pytest.mark.parametrize("names", [["a"], ["a,b", 'say "x"', "c"], ["ø", " d "], ["1", ""]])
def test_names_in_a_query_are_read_as_they_were(names: list[str]) -> None:
    params = in_query(given({"targets": names}))

    assert params is not None
    assert split_names("targets", params["targets"]) == names


@pytest.mark.parametrize(
    "options",
    [{"targets": ["a\nb"]}, {"reference": {"a:b": "x"}}, {"start": {"version": 1}}, {"features": ["x" * 99] * 60}],
)
def test_options_that_a_query_cannot_have_are_left_to_a_form(options: dict[str, Any]) -> None:
    assert in_query(given(options)) is None


def test_options_in_json_are_nested() -> None:
    options = {"l2": 0.5, "folds": 3, "targets": ["y"]}

    assert in_json(options) == {"targets": ["y"], "solver": {"kind": "exact", "l2": 0.5}, "validation": {"folds": 3}}
    assert in_json({"targets": ["y"]}) == {"targets": ["y"]}


def test_a_form_has_the_options_before_the_files() -> None:
    form = FormBody((BytesBody(b"a\n1\n", "text/csv"),), {"targets": ["a"]}, boundary="line")

    assert b"".join(form.chunks()) == (
        b'--line\r\nContent-Disposition: form-data; name="options"\r\n\r\n{"targets":["a"]}\r\n'
        b'--line\r\nContent-Disposition: form-data; name="file"; filename="file"\r\nContent-Type: text/csv\r\n\r\n'
        b"a\n1\n\r\n--line--\r\n"
    )


def test_a_format_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="There is no format 'docx'"):
        body_of_source(b"", "docx")
