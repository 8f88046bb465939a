"""The code on docs/python.md gives the output that the page shows."""

import doctest
import re

import pytest
from service import ROOT

PAGE = ROOT / "docs" / "python.md"


def test_every_block_of_the_python_page_gives_its_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    test = doctest.DocTestParser().get_doctest(code, {}, PAGE.name, str(PAGE), 0)

    failures, attempted = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)

    assert (failures, attempted > 10) == (0, True)
