"""The pieces of the command that need no process: text for terminals, files as bodies, options."""

import gzip
import json
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from linserve.cli.options import in_document, in_query, options_of, with_options
from linserve.cli.rows import json_rows
from linserve.cli.settings import masked
from linserve.cli.text import as_json, cell, clean, clean_lines, is_hidden, ranges
from linserve.cli.uploads import Upload

TEXTS = st.text(st.characters(exclude_categories=()))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
FEATURES = [
    {"name": "area", "kind": "number", "decimal": ".", "thousands": "", "na": ["?"]},
    {"name": "city", "kind": "category", "decimal": ".", "thousands": "", "na": []},
]


@given(TEXTS)
def test_no_character_that_a_terminal_obeys_is_left(text: str) -> None:
    assert not any(map(is_hidden, clean(text)))
    assert not any(is_hidden(character) for character in clean_lines(text) if character not in "\n\t")
    clean(text).encode()  # without lone surrogates


@pytest.mark.parametrize("text", ["Tromsø", "[bold]", ":smile:", "日本", "a b"])
def test_text_that_can_be_read_is_left_alone(text: str) -> None:
    assert clean(text) == text


def test_escapes_are_shown_as_such() -> None:
    assert clean("a\x1b[31mb\u202ec\x9b\x7f") == r"a\x1b[31mb\u202ec\x9b\x7f"


@given(VALUES, st.sampled_from([None, 2]))
def test_json_without_hidden_characters_has_the_same_value(value: object, indent: int | None) -> None:
    text = as_json(value, indent)
    assert json.loads(text) == value
    assert not any(map(is_hidden, text.replace("\n", "")))


def test_a_cell_has_all_digits_where_they_are_read_by_programs() -> None:
    assert cell(53.79556783791256, exact=True) == "53.79556783791256"
    assert cell(53.79556783791256, exact=False) == "53.7956"
    assert [cell(value, exact=True) for value in (None, True, 3, ["a", "b\t"])] == ["", "yes", "3", r"a, b\t"]


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (b"a,b\n1,2\n", "text/csv"),
        (b"", "text/csv"),
        (b'{"a": 1}\n{"a": 2}\n', "application/x-ndjson"),
        (b'{"a": 1}', "application/x-ndjson"),
        (b'{"instances": [[1]]}', "application/json"),
        (b'{\n  "instances": [[1]]\n}', "application/json"),
        (b' [{"a": 1}]', "application/json"),
        (b"PAR1....", "application/vnd.apache.parquet"),
        (b"\xff\xff\xff\xff....", "application/vnd.apache.arrow.stream"),
        (b"ARROW1..", "application/vnd.apache.arrow.stream"),
        (b"PK\x03\x04..", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ],
)
def test_a_file_without_an_extension_is_recognised_by_its_first_bytes(
    tmp_path: Path, content: bytes, media_type: str
) -> None:
    (tmp_path / "rows").write_bytes(content)
    with Upload(str(tmp_path / "rows")) as upload:
        assert (upload.media_type, upload.length) == (media_type, len(content))
        assert b"".join(upload.chunks()) == b"".join(upload.chunks()) == content  # as a retry reads it


def test_a_compressed_file_has_the_format_of_the_extension_before(tmp_path: Path) -> None:
    file = tmp_path / "rows.ndjson.gz"
    file.write_bytes(gzip.compress(b'{"a": 1}\n'))
    with Upload(str(file)) as upload:
        assert (upload.media_type, upload.encoding) == ("application/x-ndjson", "gzip")


def test_bytes_appended_after_the_start_are_not_sent(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(b"a\n1\n")
    with Upload(str(file)) as upload:
        with file.open("ab") as appended:
            appended.write(b"2\n")
        assert b"".join(upload.chunks()) == b"a\n1\n"


def test_the_progress_of_an_upload_begins_again_with_each_attempt(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(bytes(600_000))
    sent: list[int] = []
    with Upload(str(tmp_path / "rows.csv")) as upload:
        upload.on_sent = sent.append
        for _ in range(2):
            list(upload.chunks())
    assert sent[: len(sent) // 2] == sent[len(sent) // 2 :] == [0, *sorted(sent[1 : len(sent) // 2])]
    assert sent[-1] == 600_000


@pytest.mark.parametrize("text", ["name", "=1", "name 1"])
def test_an_option_without_a_name_or_a_value_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="NAME=VALUE"):
        options_of([text])


def test_an_option_that_is_given_twice_is_refused() -> None:
    with pytest.raises(typer.BadParameter, match="twice"):
        options_of(["sep=;", "sep=,"])


def test_names_may_be_in_several_options_and_have_commas_in_quotes() -> None:
    options = {"targets": ["a,b", '"c,d"'], "folds": 5, "l2": "auto", "unseen": True, "missing": None, "terms": []}
    assert in_query(options) == {"targets": 'a,b,"c,d"', "folds": "5", "l2": "auto", "unseen": "true"}
    assert in_document(options) == {"targets": ["a", "b", "c,d"], "folds": 5, "l2": "auto", "unseen": True}


def test_options_become_a_part_of_a_request_in_json(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('{"instances": [[1]], "targets": [2]}')
    with Upload(str(tmp_path / "rows.json")) as upload:
        assert upload.is_request
        body = with_options(upload, {"model": "m", "folds": 5, "l2": "0.5", "solver": None})
        assert json.loads(body.content) == {
            "instances": [[1]], "targets": [2], "model": "m", "solver": {"kind": "exact", "l2": 0.5},
            "validation": {"folds": 5},
        }  # fmt: skip
        with pytest.raises(typer.BadParameter, match="already contains targets"):
            with_options(upload, {"targets": ["a"]})


@pytest.mark.parametrize(("name", "separator"), [("rows.csv", ";"), ("rows.csv", ","), ("rows.tsv", "\t")])
def test_rows_for_an_explanation_are_read_by_the_schema(tmp_path: Path, name: str, separator: str) -> None:
    file = tmp_path / name
    file.write_text("city;area;rent\nOslo;60.5;1\nBergen;?;2\n7;wide;3\n".replace(";", separator))
    with Upload(str(file)) as upload:
        rows = json_rows(upload, {"features": FEATURES, "dialect": {"sep": ";"}})
    assert rows == [
        {"city": "Oslo", "area": 60.5},
        {"city": "Bergen", "area": None},
        {"city": "7", "area": "wide"},  # The service names the place.
    ]


def test_binary_rows_have_no_explanation(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"PAR1\xff")
    with Upload(str(tmp_path / "rows.parquet")) as upload, pytest.raises(typer.BadParameter, match="needs rows in CSV"):
        json_rows(upload, {"features": FEATURES})


@given(st.text(st.characters(codec="ascii", exclude_categories=("C", "Z")), min_size=1))
def test_most_of_a_key_is_never_shown(key: str) -> None:
    assert len(masked(key)) - 1 <= len(key) / 4


def test_neighbouring_numbers_are_a_range() -> None:
    assert ranges([]) == ""
    assert ranges([1, 2, 3, 5, 7, 8]) == "1-3, 5, 7-8"
