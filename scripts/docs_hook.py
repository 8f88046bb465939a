"""MkDocs hook that generates parts of the site from the code, so that nothing is written twice.

A page includes such a part with the line `<!-- generated: NAME -->`, where NAME is a key of `PARTS`.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic.fields import FieldInfo

from app import errors
from app.main import create_app
from app.settings import PREFIX, Settings
from app.web.problems import STATUS
from scripts.command_reference import commands

ROOT = Path(__file__).parents[1]
# Files outside of docs/ that are pages of the site.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
_LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?(?=\))")
_ROW = re.compile(r"^\| `([a-z-]+)` \|", re.MULTILINE)
_FOREIGN = re.compile(
    r"""<(?:script|img|iframe|link(?! rel=["']?canonical))\b[^>]*\b(?:src|href)=["']?(?:https?:)?//"""
)
_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are files outside of docs/."""
    for source, target in PAGES.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in the generated parts of a page, and point its links to pages of the site."""
    target = page.file.src_uri
    if target == "reference/errors.md":
        markdown = _with_statuses(markdown)
    markdown = re.sub(r"<!-- generated: (\w+) -->", lambda part: "\n".join(PARTS[part[1]]()), markdown)
    source = next((name for name, generated in PAGES.items() if generated == target), f"docs/{target}")
    return _LINK.sub(lambda link: _in_site(link[1], source, target) + (link[2] or ""), markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Raise ValueError if the page would load something from another host."""
    if foreign := _FOREIGN.search(output):
        raise ValueError(f"{page.file.src_uri} loads from another host: {foreign[0]}")
    return output


def _in_site(link: str, source: str, target: str) -> str:
    """Return the link from the page `target` to the page that `link` in the file `source` names."""
    file = os.path.normpath(os.path.join(os.path.dirname(source), link))  # noqa: PTH118, PTH120 - no file is read
    page = PAGES.get(file, file.removeprefix("docs/"))
    return os.path.relpath(page, os.path.dirname(target) or ".")  # noqa: PTH120


def problem_types() -> dict[str, int]:
    """Return the status of each error class, by the last part of its problem type."""
    classes = [errors.LinserveError]
    for parent in classes:
        classes += parent.__subclasses__()
    statuses = {}
    for error in classes[1:]:
        words = re.findall("[A-Z][a-z]*", error.__name__)
        statuses["-".join(words).lower()] = next(STATUS[base] for base in error.__mro__ if base in STATUS)
    return statuses


def _with_statuses(markdown: str) -> str:
    """Add a column with the status to the tables of error classes. Raises ValueError if a class has no row."""
    statuses = problem_types()
    if missing := statuses.keys() - set(_ROW.findall(markdown)):
        raise ValueError(f"reference/errors.md: no row for {', '.join(sorted(missing))}")
    markdown = markdown.replace("| problem | cause | remedy |\n|", "| problem | status | cause | remedy |\n|---|")
    return _ROW.sub(lambda row: f"{row[0]} {statuses[row[1]]} |" if row[1] in statuses else row[0], markdown)


def settings() -> Iterator[str]:
    """Yield a table of the settings."""
    yield "| variable | default | bounds | meaning |"
    yield "|---|---|---|---|"
    for name, field in Settings.model_fields.items():
        meaning = _cell(field.description or "")
        yield f"| `{PREFIX}{name.upper()}` | {_default(field)} | {_bounds(field)} | {meaning} |"


def _default(field: FieldInfo) -> str:
    return "none" if field.default is None else f"`{_shown(field.default)}`"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        for unit, symbol in _UNITS:
            if value and value % unit == 0:
                return f"{value // unit} {symbol}"
    return str(value)


def _bounds(field: FieldInfo) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [(sign, getattr(bound, key, None)) for bound in field.metadata for key, sign in signs.items()]
    return ", ".join(f"{sign} {_shown(bound)}" for sign, bound in bounds if bound is not None)


def http() -> Iterator[str]:
    """Yield the calls and the schemas of the OpenAPI document."""
    document = create_app().openapi()
    shared: dict[str, str] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            name = f"{method.upper()} {path}"
            yield from ("", f"## {operation['summary']}", "", f"`{name}`", "", operation.get("description", ""), "")
            yield from _parameters(name, operation, shared)
            responses = ", ".join(f"{status} ({_content(response)})" for status, response in _successes(operation))
            yield from (f"Responses: {responses}.", "")
            yield f"Problems: {', '.join(status for status in sorted(operation['responses']) if status >= '400')}."
    for name, schema in sorted(document["components"]["schemas"].items()):
        yield from ("", f"## {name}", "", schema.get("description", ""), "")
        if properties := schema.get("properties"):
            yield from ("| field | type | default | meaning |", "|---|---|---|---|")
            for field, part in properties.items():
                default = f"`{part['default']}`" if part.get("default") is not None else ""
                yield f"| `{field}` | {_type(part)} | {default} | {_cell(part.get('description', ''))} |"


def _parameters(name: str, operation: dict[str, Any], shared: dict[str, str]) -> Iterator[str]:
    """Yield a table of parameters, or a pointer to the first call that has the same table."""
    rows = [
        f"| `{one['name']}` | {one['in']} | {_type(one['schema'])} | {_cell(one.get('description', ''))} |"
        for one in operation.get("parameters", [])
    ]
    own = [row for row in rows if "| path |" in row]
    common = "\n".join(row for row in rows if row not in own)
    repeated = shared.get(common) if common else None
    shown = own if repeated else rows
    if shown:
        yield from ("| parameter | in | type | meaning |", "|---|---|---|---|", *shown, "")
    if repeated:
        yield from (f"All other parameters are those of `{repeated}`.", "")
    elif common:
        shared[common] = name
    if body := operation.get("requestBody"):
        yield from (f"Body: {', '.join(f'`{kind}`' for kind in body['content'])}{_body(body)}.", "")


def _body(body: dict[str, Any]) -> str:
    schema = body["content"].get("application/json", {}).get("schema", {})
    return f"; JSON has the schema {_type(schema)}" if "$ref" in schema else ""


def _successes(operation: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(status, response) for status, response in sorted(operation["responses"].items()) if status < "400"]


def _content(response: dict[str, Any]) -> str:
    """Return the schemas and media types of a response, or its description if it has no body."""
    schemas = {name: content.get("schema", {}) for name, content in response.get("content", {}).items()}
    named = [_type(schema) if "$ref" in schema else f"`{name}`" for name, schema in schemas.items()]
    return ", ".join(named) or response["description"].rstrip(".")


def _type(schema: dict[str, Any]) -> str:
    """Return a schema as a short Markdown text, with links to named schemas."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_type(part) for part in schema[key]))
    kind = schema.get("type", "any")
    if kind == "array":
        return f"array of {_type(schema.get('items', {}))}"
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return " ".join([str(kind), *(f"{sign} {schema[key]}" for key, sign in bounds.items() if key in schema)])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def benchmarks() -> Iterator[str]:
    """Yield the results of the last `make bench`, with its headings one level lower."""
    yield (ROOT / "benchmarks" / "RESULTS.md").read_text().replace("\n## ", "\n### ").partition("\n")[2]


PARTS: dict[str, Callable[[], Iterator[str]]] = {
    "settings": settings,
    "http": http,
    "benchmarks": benchmarks,
    "commands": commands,
}
