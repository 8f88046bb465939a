"""Reads the bytes of a PMML file within bounds: no document type, no entities, nothing from elsewhere."""

import re
from collections.abc import Iterator
from math import isfinite
from typing import Any, TypeAlias
from xml.etree.ElementTree import ParseError, TreeBuilder

from app.data.columns.gaps import NUMBER
from app.data.names import shown
from app.errors import InvalidInput

Element: TypeAlias = Any  # xml.etree.ElementTree.Element, whose module is for trusted files

MAX_BYTES = 32 << 20  # Bytes of a file.
_MAX_ELEMENTS = 250_000  # Elements of a file, each of which takes about 200 bytes.
_MAX_DEPTH = 50  # Elements within each other. Expressions in expressions use most.
_HEAD = 4096  # Bytes at the beginning in which the root is expected.
_NAMESPACE = re.compile(r"\{[^}]*\}")


def is_pmml(content: bytes) -> bool:
    """Return True if the content is XML whose first elements include PMML."""
    head = content[:_HEAD].removeprefix(b"\xef\xbb\xbf").lstrip()
    return head.startswith(b"<") and re.search(rb"<(?:\w+:)?PMML[\s>]", head) is not None


class _Builder(TreeBuilder):
    """Builds the elements, and counts them."""

    depth = count = 0

    def start(self, tag: str, attributes: dict[str, str]) -> Element:
        self.depth, self.count = self.depth + 1, self.count + 1
        if self.depth > _MAX_DEPTH or self.count > _MAX_ELEMENTS:
            raise InvalidInput(
                f"The file has more than {_MAX_ELEMENTS:,} elements, or more than {_MAX_DEPTH} within each other."
            )
        return super().start(tag, attributes)

    def end(self, tag: str) -> Element:
        self.depth -= 1
        return super().end(tag)


def parsed(content: bytes) -> Element:
    """Return the root. Raises InvalidInput for a file that is not PMML, too large, or has a document type."""
    from defusedxml import DefusedXmlException, ElementTree  # type: ignore[import-untyped]

    if len(content) > MAX_BYTES:
        raise InvalidInput(f"The file has {len(content):,} bytes. PMML files of up to {MAX_BYTES:,} bytes are read.")

    try:
        # In one piece, because expat parses a long attribute from its start again for each piece.
        parser = ElementTree.DefusedXMLParser(target=_Builder(), forbid_dtd=True)
        parser.feed(content)
        root = parser.close()
    except DefusedXmlException:
        raise InvalidInput("The file has a document type or entities, which are not read. Remove them.") from None
    except ParseError as error:
        line, column = error.position
        raise InvalidInput(f"The file is not well-formed XML, at line {line}, column {column + 1}.") from None
    except (ValueError, LookupError):
        raise InvalidInput("The file has an unknown encoding or a damaged one. Save it in UTF-8.") from None
    if tag_of(root) != "PMML":
        raise InvalidInput("The file is not PMML: its first element is not PMML.")
    return root


def tag_of(element: Element) -> str:
    """Return the name of an element without its namespace. PMML 3 and 4 differ only in what is not read here."""
    return _NAMESPACE.sub("", element.tag) if isinstance(element.tag, str) else ""


def children(element: Element, *names: str) -> Iterator[Element]:
    """Yield the elements in an element with one of these names, or all but extensions."""
    for child in element:
        tag = tag_of(child)
        if tag in names or (not names and tag not in ("Extension", "")):
            yield child


def child(element: Element, name: str) -> Element | None:
    return next(children(element, name), None)


def text_of(element: Element, attribute: str) -> str:
    """Return an attribute. Raises InvalidInput if it is missing."""
    value = element.get(attribute)
    if value is None:
        raise InvalidInput(f"An element {tag_of(element)} has no attribute {attribute}.")
    return str(value)


def number_of(element: Element, attribute: str, default: float | None = None) -> float:
    """Return an attribute as a number. Raises InvalidInput if it is none."""
    if default is not None and element.get(attribute) is None:
        return default
    return number(text_of(element, attribute), f"The attribute {attribute} of an element {tag_of(element)}")


def number(text: str, subject: str) -> float:
    """Return a text as a finite number. Raises InvalidInput if it is none."""
    if len(text) > 1000 or re.fullmatch(NUMBER, text.strip()) is None:  # noqa: PLR2004 - no number needs more
        raise InvalidInput(f"{subject} is not a number: {shown(text[:50])}.")
    if not isfinite(found := float(text)):
        raise InvalidInput(f"{subject} exceeds the range of 64-bit numbers: {shown(text[:50])}.")
    return found
