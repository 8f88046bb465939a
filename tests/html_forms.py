"""Forms and texts of pages, read without a browser."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

import httpx

FILES = {"link": "href", "script": "src", "img": "src"}
VOID = {"input", "link", "meta", "br", "hr", "img"}


@dataclass
class Form:
    """A form as a browser without scripts sends it."""

    action: str
    fields: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)  # names of fields by their labels
    options: dict[str, dict[str, str]] = field(default_factory=dict)  # values by label, by the name of the field


def weight_of(client: httpx.Client, path: str) -> int:
    """Return the bytes of all responses for the first visit of a page: of itself, and of the files that it names."""
    page = client.get(path)
    files = [client.get(url) for url in Page(page.text).files]
    return sum(
        answer.num_bytes_downloaded + sum(len(name) + len(value) + 4 for name, value in answer.headers.raw)
        for answer in (page, *files)
    )


class Page(HTMLParser):
    """A page's forms, links, files, elements by id and numbers."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.links: list[str] = []
        self.files: list[str] = []  # style sheets, scripts and images
        self.texts: dict[str, str] = {}  # of elements with an id
        self.numbers: list[float] = []  # of elements `data`
        self._open: list[tuple[str, str | None]] = []
        self._select = ""
        self._option: tuple[str, bool] | None = None
        self._label: str | None = None
        self.feed(text)
        self.close()

    def form(self, action: str) -> Form:
        """Return the only form that is sent to this path."""
        (found,) = (form for form in self.forms if form.action == action)
        return found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag not in VOID:
            self._open.append((tag, given.get("id")))
        if "id" in given:
            assert given["id"] not in self.texts, f"The id {given['id']} is used twice."
            self.texts[given["id"]] = ""
        if tag in FILES:
            self.files.append(given[FILES[tag]])
        else:
            self._add(tag, given)

    def _add(self, tag: str, given: dict[str, str]) -> None:
        if tag == "form":
            self.forms.append(Form(given["action"]))
        elif tag == "a":
            self.links.append(given["href"])
        elif tag == "data":
            self.numbers.append(float(given["value"]))
        elif tag == "label":
            self._label = given["for"]
        elif tag == "input":
            self.forms[-1].fields[given["name"]] = given.get("value", "")
        elif tag == "select":
            self._select = given["name"]
            self.forms[-1].options[self._select] = {}
        elif tag == "option":
            self._option = given.get("value", ""), "selected" in given
            self.forms[-1].fields.setdefault(self._select, self._option[0])

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass
        if tag == "label":
            self._label = None
        elif tag == "option":
            self._option = None

    def handle_data(self, data: str) -> None:
        for _, identity in self._open:
            if identity is not None:
                self.texts[identity] += data
        if self._label is not None:
            self.forms[-1].labels[data] = self._label
        if self._option is not None:
            value, is_selected = self._option
            self.forms[-1].options[self._select][data] = value
            if is_selected:
                self.forms[-1].fields[self._select] = value
