"""`make prose` finds the phrases that it counts, and only those."""

from pathlib import Path

import pytest

from scripts.prose import Text, matches, texts_of_page, texts_of_python


def phrases(words: str) -> list[str]:
    return [phrase for _, phrase in matches(Text(Path(), 1, words))]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("Of two jobs, one waits.", ["of"]),
        ("what the file holds", ["what"]),
        ("One job runs. Whatever fails is repeated.", ["whatever"]),
        ("The file is beside the log.", ["beside"]),
        ("It waits for so\nmany seconds.", ["so many"]),
        ("That is no error.", ["that", "is no"]),
        ("There is no such model. The lock is no longer held.", []),
        ("Return the rows that are left, where `beside` is a name.", []),
    ],
)
def test_phrases_are_found_in_a_text(words: str, expected: list[str]) -> None:
    assert phrases(words) == expected


def test_the_prose_of_code_is_comments_docstrings_messages_and_test_names(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        '"""What this module is."""\n\n# From here\n# it goes on.\n\n'
        'def test_what_is_told() -> None:\n    raise ValueError(f"Of {3} rows, one is empty.")  # noqa: EM102\n'
    )
    found = {(line, phrase) for text in texts_of_python(file) for line, phrase in matches(text)}
    assert found == {(1, "what"), (3, "from"), (6, "what"), (6, "told"), (7, "of")}


def test_code_in_a_page_is_not_counted(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```sh\necho beside\n```\n\nThat is it.\n")
    (text,) = texts_of_page(page)
    assert list(matches(text)) == [(7, "that")]
