"""Docstrings below the fields of a class, read from its source because Python does not keep them."""

import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise


def field_docstrings(described: type) -> dict[str, str]:
    """Return the docstrings by the names of the fields, with those of the base classes."""
    docstrings: dict[str, str] = {}
    for owner in reversed(described.__mro__):
        if owner.__module__.startswith("app."):
            docstrings |= _docstrings_of_module(owner.__module__).get(owner.__name__, {})
    return docstrings


@cache
def _docstrings_of_module(name: str) -> dict[str, dict[str, str]]:
    """Return the docstrings of the fields, by the names of the classes."""
    tree = ast.parse(inspect.getsource(sys.modules[name]))
    return {node.name: dict(_docstrings(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _docstrings(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, below in pairwise(node.body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, inspect.cleandoc(text)
