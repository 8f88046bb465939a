"""Templates are compiled once for each installation, like modules."""

from pathlib import Path

import jinja2
import pytest

from app.pages import formatting, rendering

PAGE = "learn.html"


@pytest.fixture(autouse=True)
def new_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a new environment for each call, as each process does."""
    monkeypatch.setattr(rendering, "environment", rendering.environment.__wrapped__)
    monkeypatch.setattr(rendering, "_source_of_filters", rendering._source_of_filters.__wrapped__)


def load_without_compiling(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(jinja2.Environment, "compile")
        rendering.environment(folder).get_template(PAGE)


def test_a_template_is_compiled_once(tmp_path: Path) -> None:
    rendering.environment(tmp_path).get_template(PAGE)
    load_without_compiling(tmp_path)


def test_a_template_is_compiled_again_when_a_filter_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendering.environment(tmp_path).get_template(PAGE)
    changed = tmp_path / "formatting.py"
    changed.write_text(Path(formatting.__file__).read_text() + "\n")
    monkeypatch.setattr(formatting, "__file__", str(changed))
    with pytest.raises(AttributeError, match="compile"):
        load_without_compiling(tmp_path)


def test_a_template_is_compiled_if_nothing_can_be_written(tmp_path: Path) -> None:
    assert rendering.environment(tmp_path / "missing").get_template(PAGE).name == PAGE


def test_nothing_is_written_if_python_writes_no_compiled_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    rendering.environment(tmp_path).get_template(PAGE)
    assert list(tmp_path.iterdir()) == []
