"""The form of the train page: its fields, and the options of POST /train that they set.

Most fields have the name and the syntax of an option. Empty ones are not given. The options are checked where those of
the API are.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Collection, Iterable
from typing import Any

from app.errors import InvalidInput
from app.pages.csrf import FIELD as CSRF
from app.web.multipart import Form
from app.web.query import split_names
from app.web.schemas.solver_options import SOLVER_FIELDS, SOLVER_OPTIONS

KIND = "kind"  # Field with KIND:NAME for a column whose kind was chosen.
PREVIEW_OF = "preview_of"  # Field with the bytes of the whole file, if only its beginning is previewed.
_NO_OPTIONS = frozenset({CSRF, KIND, PREVIEW_OF})
MAX_SUGGESTED_NAME = 40  # Characters of a name that is made from that of a file.
_LISTS = ("targets", "drop")


def quoted(name: str) -> str:
    """Return a column's name as it is written in a list."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([name])
    return text.getvalue()


def options_of(form: Form) -> Form:
    """Return the options that the fields of the page set. Fields of the solver that is not chosen are ignored.

    A kind that was chosen for a column that is ignored does not count either.
    """
    chosen = value_of(form, "solver") or next(iter(SOLVER_OPTIONS))
    others = SOLVER_FIELDS - {*(SOLVER_OPTIONS[chosen].model_fields if chosen in SOLVER_OPTIONS else SOLVER_FIELDS)}
    fields = [(name, text) for name, text in form.fields if text and name not in _NO_OPTIONS | others]
    options: dict[str, Any] = {**form.options}
    dropped = names_in(form, "drop")
    if kinds := {name: {"kind": kind} for name, kind in chosen_kinds(form).items() if name not in dropped}:
        options["columns"] = kinds
    return Form(fields, options, form.is_complete)


def without_new_model(form: Form, models: Collection[str]) -> Form:
    """Return the options for a preview, which compares a file only with a model that exists."""
    options = options_of(form)
    options.fields = [(name, text) for name, text in options.fields if name != "model" or text in models]
    return options


def suggested_model(file_name: str) -> str:
    """Return a name for the model of a file, or an empty text."""
    stem = re.split(r"[/\\]", file_name)[-1].partition(".")[0]
    ascii_text = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_text.lower()).strip("-")[:MAX_SUGGESTED_NAME].strip("-")


def value_of(form: Form, name: str) -> str:
    """Return the first text of a field, or an empty one."""
    return next((text for field, text in form.fields if field == name), "")


def values_of(form: Form) -> dict[str, str]:
    """Return the texts of the fields with one text each, to fill in the form again."""
    return {name: text for name, text in form.fields if name not in {*_LISTS, *_NO_OPTIONS}}


def names_in(form: Form, option: str) -> list[str]:
    """Return the names in all fields of a list. One that cannot be read has none, and is refused with the options."""
    names: list[str] = []
    for field, text in form.fields:
        if field == option and text:
            try:
                names += split_names(option, text)
            except InvalidInput:
                continue
    return names


def chosen_kinds(form: Form) -> dict[str, str]:
    """Return the kinds that were chosen, by column."""
    fields = (text.partition(":") for field, text in form.fields if field == KIND)
    return {name: kind for kind, _, name in fields if kind}


def without(names: Iterable[str], others: Iterable[str]) -> str:
    """Return the names that are not among the others, as they are written in a list."""
    left_out = {*others}
    return ",".join(quoted(name) for name in names if name not in left_out)
