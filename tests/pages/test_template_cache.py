from pathlib import Path

import pytest
from jinja2 import DictLoader, Environment

from app.pages import rendering
from app.pages.rendering import TemplateCache, environment, load_templates


@pytest.fixture(autouse=True)
def cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.dont_write_bytecode", False)


def text_of(source: str, folder: Path) -> str:
    made = Environment(loader=DictLoader({"page": source}), bytecode_cache=TemplateCache(str(folder)), autoescape=True)
    return made.get_template("page").render(name="<b>")


def forbid_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_source(*_: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(Environment, "_compile", compile_source)


def test_a_compiled_template_is_read_by_the_next_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert text_of("I am {{ name }}", tmp_path) == "I am &lt;b&gt;"
    forbid_compiling(monkeypatch)
    assert text_of("I am {{ name }}", tmp_path) == "I am &lt;b&gt;"


def test_all_templates_of_the_pages_are_read_by_the_next_process(monkeypatch: pytest.MonkeyPatch) -> None:
    load_templates()
    environment.cache_clear()
    forbid_compiling(monkeypatch)
    load_templates()


def test_a_changed_template_is_compiled_again(tmp_path: Path) -> None:
    assert text_of("one", tmp_path) == "one"
    assert text_of("two", tmp_path) == "two"


def test_a_template_is_compiled_again_if_the_filters_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text_of("one", tmp_path)
    monkeypatch.setattr(rendering, "getsource", lambda _: "changed")
    forbid_compiling(monkeypatch)
    with pytest.raises(AssertionError, match="compiled again"):
        text_of("one", tmp_path)


@pytest.mark.parametrize("damage", [b"", b"cut off", bytes(100)])
def test_a_damaged_file_is_replaced(tmp_path: Path, damage: bytes) -> None:
    text_of("one", tmp_path)
    (file,) = tmp_path.iterdir()
    intact = file.read_bytes()
    file.write_bytes(damage)
    assert text_of("one", tmp_path) == "one"
    assert file.read_bytes() == intact


def test_without_a_folder_that_can_be_written_each_process_compiles(tmp_path: Path) -> None:
    assert text_of("one", tmp_path / "nowhere") == "one"
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_if_python_writes_no_bytecode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    assert text_of("one", tmp_path) == "one"
    assert not list(tmp_path.iterdir())
