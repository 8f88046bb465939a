"""The reference of the command names everything that it can do."""

import re
import sys
from typing import Any

import pytest
from command import CLIENT
from service import ROOT
from typer.main import get_command

from linserve.cli.app import app

EACH: list[tuple[str, Any]] = [
    (f"{name} {inner}".strip(), command)
    for name, group in get_command(app).commands.items()  # type: ignore[attr-defined]
    for inner, command in (getattr(group, "commands", None) or {"": group}).items()
]


@pytest.fixture(scope="module")
def reference() -> str:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from scripts.command_reference import commands
    finally:
        sys.path.pop(0)
    return "\n".join(commands())


@pytest.mark.parametrize(("name", "command"), EACH, ids=[name for name, _ in EACH])
def test_each_option_of_a_command_has_a_row_and_a_meaning(reference: str, name: str, command: Any) -> None:
    section = re.search(rf"^## {name}\n.*?(?=^## |\Z)", reference, re.MULTILINE | re.DOTALL)
    assert section is not None
    shared = reference.split("\n## train\n", maxsplit=1)[0]
    rows = re.findall(r"^\| `(--[^`]+)` \| .* \| (.+) \|$", shared + section[0], re.MULTILINE)
    named = {option for options, _ in rows for option in options.split(", ")}
    for parameter in command.params:
        if parameter.param_type_name == "option" and parameter.name != "help":
            assert {*parameter.opts, *parameter.secondary_opts} <= named
            assert parameter.help
    assert "`linserve " in section[0]


def test_the_page_of_the_command_line_names_each_command() -> None:
    page = (ROOT / "docs/how-to/command-line.md").read_text()
    missing = [name for name, _ in EACH if f"linserve {name}" not in page and name != "config unset"]
    assert missing == []


def test_the_client_imports_nothing_of_the_service() -> None:
    for path in CLIENT.rglob("*.py"):
        assert not re.search(r"^\s*(from|import) app\b", path.read_text(), re.MULTILINE), path
