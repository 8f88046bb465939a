"""The programs on the pages of the documentation print what the pages show."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pasted import Reader
from programs import python_with
from service import ROOT

# The packages that the programs of each page need, or the program of a page after a #.
PAGES: dict[str, str] = {
    "kserve-v1.md": "kserve",
    "mlflow.md": "mlflow",
    "open-inference.md#predict.py": "triton",
    "open-inference.md#ask.py": "kserve",
}


@pytest.fixture
def reader(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Reader]:
    somebody = Reader(tmp_path, python_with(request.param))
    yield somebody
    somebody.stop()


@pytest.mark.parametrize(("page", "reader"), [*PAGES.items()], ids=[*PAGES], indirect=["reader"])
def test_every_program_of_a_page_prints_what_the_page_shows(reader: Reader, page: str) -> None:
    name, _, title = page.partition("#")
    reader.follow(ROOT / "docs" / "how-to" / name, title)
