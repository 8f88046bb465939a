"""Count private and convoluted phrases in the prose of this repository: `make prose`.

Such phrases need a second reading. The prose of code is its docstrings, comments, messages and test names; the prose of
the documentation is its pages without their code. The exit status is 1 if either is above its limit.
"""

import argparse
import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
CODE = ("app", "client", "tests", "chaos", "benchmarks", "models", "scripts")
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "client", "docs")
CODE_LIMIT, DOCS_LIMIT = 5.0, 3.0  # Matches per 1,000 words.
MIN_MESSAGE_WORDS = 4  # Shorter string literals are names and values.

_OPENINGS = "of|that|whatever|what|where|from|whether"
_PHRASES = (
    r"beside|stands?|told|so many|as many as|as much as|but for|likewise|whichever|for ever|as long as it may"
    r"|hurts?|lets? go|let go|nothing here|what of|of what|brought to disk|will do|in so many|come to lie|came to lie"
    r"|(?<!there\s)is no(?! longer)|as it may|that of a(?:nother)?|is such|of those that|of that kind|at hand"
    r"|none of ours|all the same|all that|nothing of|no more than that|says?|where (?:there|no|none|nothing)"
)
# Starts of later sentences, list items and headings, which have a capital letter. The first letter may be small.
_START = r"(?:[.!?][\"')]?\s+|\n\s*\n\s*|\n\s*(?:[-*]|\d+\.)\s+|\n#+\s+)"
PATTERNS = (
    re.compile(rf"\A[^\w{{}}]*(?P<phrase>{_OPENINGS})\b", re.IGNORECASE),
    re.compile(rf"{_START}\W{{0,3}}(?P<phrase>{_OPENINGS.title()})\b"),
    re.compile(r"\b(?P<phrase>" + _PHRASES.replace(" ", r"\s+") + r")\b", re.IGNORECASE),
)
_DIRECTIVE = re.compile("#!|# ?(noqa|type:|fmt:|pragma|ruff:|syntax)")


class Text(NamedTuple):
    path: Path
    line: int
    words: str


def texts_of_python(path: Path) -> Iterator[Text]:
    """Yield docstrings, messages, test names, and comments; comments on consecutive lines are one text."""
    source = path.read_text()
    nodes = list(ast.walk(ast.parse(source)))
    # The parts of an f-string are one text, with its values left out.
    parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield Text(path, node.lineno, node.name.removeprefix("test_").replace("_", " "))
        elif isinstance(node, ast.expr) and id(node) not in parts and len(_words(_literal(node))) >= MIN_MESSAGE_WORDS:
            yield Text(path, node.lineno, _literal(node))
    block = Text(path, 0, "")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or _DIRECTIVE.match(token.string):
            continue
        row, words = token.start[0], token.string.lstrip("# ")
        if token.line.lstrip().startswith("#") and row == block.line + block.words.count("\n") + 1:
            block = block._replace(words=f"{block.words}\n{words}")
        else:
            yield block
            block = Text(path, row, words)
    yield block


def texts_of_page(path: Path) -> Iterator[Text]:
    """Yield the page as one text, with code blanked out and its lines kept."""
    yield Text(path, 1, re.sub(r"(?ms)^```.*?^```$", lambda code: "\n" * code[0].count("\n"), path.read_text()))


def _literal(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(_literal(part) or "{}" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _words(text: str) -> list[str]:
    return re.findall(r"[A-Za-z][A-Za-z'-]*", text)


def matches(text: Text) -> Iterator[tuple[int, str]]:
    """Yield the line and the phrase of each match."""
    prose = re.sub(r"`[^`]+`", lambda code: "`" + re.sub(r"[^\n]", "_", code[0][1:-1]) + "`", text.words)
    for pattern in PATTERNS:
        for match in pattern.finditer(prose):
            yield text.line + prose.count("\n", 0, match.start("phrase")), " ".join(match["phrase"].lower().split())


def files(kind: str, only: Iterable[Path]) -> list[Path]:
    names, suffix = (CODE, "*.py") if kind == "code" else (PAGES, "*.md")
    places = [ROOT / name for name in names]
    every = [file for place in places for file in ([place] if place.is_file() else sorted(place.rglob(suffix)))]
    wanted = [path.resolve() for path in only] or [ROOT]
    return [file for file in every if file != Path(__file__) and any(file.is_relative_to(path) for path in wanted)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="print each place")
    parser.add_argument("paths", nargs="*", type=Path, help="count only in these files and folders")
    options = parser.parse_args()
    excess = False
    for kind, read, limit in (("code", texts_of_python, CODE_LIMIT), ("docs", texts_of_page, DOCS_LIMIT)):
        texts = [text for file in files(kind, options.paths) for text in read(file)]
        places = [(text.path.relative_to(ROOT), *place) for text in texts for place in matches(text)]
        if options.list:
            sys.stdout.writelines(f"{path}:{line}: {phrase}\n" for path, line, phrase in places)
        total = sum(len(_words(text.words)) for text in texts)
        rate = 1000 * len(places) / max(total, 1)
        sys.stdout.write(f"{kind}: {len(places)} in {total:,} words, {rate:.1f} per 1,000; the limit is {limit:.0f}\n")
        excess = excess or rate > limit
    return int(excess)


if __name__ == "__main__":
    sys.exit(main())
