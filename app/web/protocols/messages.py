"""Messages of errors in the words of one wire format.

Messages are written for this service's own API. Advice that names an option, a call or a media type of another format
would mislead the clients of this one.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from fastapi.routing import iter_route_contexts
from pydantic import BaseModel

from app.web.bodies import JSON
from app.web.paths import first_segments
from app.web.protocols.base import WireFormat

# A sentence with the space after it. The number of faults belongs to the sentence after it, which has the first fault.
# A name in quotes may have any characters except quotes.
_SENTENCE = re.compile(r'(?:[^."]* fault\(s\) in the [a-z ]+\. )?(?:"[^"]*"|.)+?(?:[.?!] (?=[A-Z`])|\Z)', re.DOTALL)
_OPTION = re.compile(r"`([a-z_]+)(?:=[^`]*)?`")
_CALL = re.compile(r"\b(?:GET|POST|PUT|DELETE) /([^\s/]*)")  # with the first segment of its path
_MEDIA_TYPE = re.compile(r"Content-Type: ([a-z]+/[a-z.+-]*[a-z])")


def in_words_of(wire_format: WireFormat, message: str) -> str:
    """Return a message with this format's calls, and without advice that names something of another format.

    The first sentence, which has the fault, always stays.
    """
    for call, same in wire_format.calls or ():
        message = message.replace(call, same)
    first, *others = _SENTENCE.findall(message) or [""]
    return "".join([first, *(sentence for sentence in others if _fits(wire_format, sentence))]).rstrip()


def _fits(wire_format: WireFormat, sentence: str) -> bool:
    return (
        _words(wire_format.schemas).issuperset(_OPTION.findall(sentence))
        and first_segments(wire_format.router.routes).issuperset(_CALL.findall(sentence))
        and _media_types(wire_format).issuperset(_MEDIA_TYPE.findall(sentence))
    )


@cache
def _words(schemas: tuple[type[BaseModel], ...]) -> frozenset[str]:
    """Return the names and the words that bodies of these schemas may have."""
    return frozenset(word for schema in schemas for word in _words_in(schema.model_json_schema()))


def _words_in(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from node.get("properties", {})
        yield from (value for value in node.get("enum", ()) if isinstance(value, str))
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _words_in(child)


def _media_types(wire_format: WireFormat) -> frozenset[str]:
    """Return the media types of bodies that the format takes."""
    extras = [context.openapi_extra or {} for context in iter_route_contexts(wire_format.router.routes)]
    return frozenset({JSON}.union(*(extra.get("requestBody", {}).get("content", {}) for extra in extras)))
