"""The options of the solvers in a request, made from the dataclasses of `app.regression.solvers`.

A solver that is added to SOLVERS is accepted in JSON and in queries, and documented, without a change here.
"""

import dataclasses
import types
from inspect import cleandoc
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias, Union, cast, get_args, get_origin, get_type_hints

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    GetPydanticSchema,
    Tag,
    create_model,
    model_validator,
)

from app.regression.solvers import SOLVER_OF_KIND, SOLVERS
from app.regression.solvers.base import Keyword
from app.web.schemas.openapi_schema import Schema


class Options(Schema):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class DataclassOptions(Options):
    """Options that become a dataclass: a solver, or the value of one of its options."""

    made: ClassVar[Any]  # the dataclass

    @classmethod
    def documented_class(cls) -> type:
        return cast("type", cls.made)

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.value()  # The dataclass has checks of its own.
        return self

    def value(self) -> Any:
        """Return the dataclass. An option that is a keyword has its default value there."""
        hints = get_type_hints(self.made, include_extras=True)
        options = {}
        for name in type(self).model_fields:
            option = getattr(self, name)
            if option not in _keywords(hints[name]):
                options[name] = option.value() if isinstance(option, DataclassOptions) else option
        return self.made(**options)


def without_default(schema: dict[str, Any]) -> None:
    """Drop the default from the OpenAPI document.

    A client that sent it would override the current version's value. Generators do not understand it for a union.
    """
    schema.pop("default", None)


def _options_of(made: Any) -> type[DataclassOptions]:
    """Return the model whose options are the fields of a dataclass, with their bounds, docstrings and defaults."""
    hints = get_type_hints(made, include_extras=True)
    inherited = getattr(made, "inherited", ())
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(made):
        option = _of_either_type(hints[field.name])
        hides_default = option is not hints[field.name] or field.name in inherited
        is_required = field.name == "kind" and made is not _DEFAULT
        fields[field.name] = (
            option,
            Field(
                ... if is_required else field.default,
                json_schema_extra=without_default if hides_default else None,
            ),
        )
    model = create_model(f"{made.__name__}Options", __base__=DataclassOptions, __doc__=cleandoc(made.__doc__), **fields)
    model.made = made
    if extra := getattr(made, "__pydantic_config__", {}).get("json_schema_extra"):
        model.model_config["json_schema_extra"] = extra
        model.model_rebuild(force=True)
    return model


def _of_either_type(annotation: Any) -> Any:
    """Return a tagged union for an option that is a word or something else, to report faults of one only."""
    if keywords := _keywords(annotation):
        value, *rules = get_args(annotation)
        bounds = [rule for rule in rules if not isinstance(rule, Keyword)]
        return _tagged(Literal[tuple(keywords)], Annotated[value, *bounds], "number", keywords)
    words = [part for part in get_args(annotation) if get_origin(part) is Literal]
    others = [part for part in get_args(annotation) if dataclasses.is_dataclass(part)]
    if get_origin(annotation) in (Union, types.UnionType) and words and others:
        return _tagged(words[0], _options_of(others[0]), "object", None)
    return annotation


def _keywords(annotation: Any) -> list[str]:
    return [rule.word for rule in get_args(annotation) if isinstance(rule, Keyword)]


def _tagged(word: Any, other: Any, tag: str, words: list[str] | None) -> Any:
    """Return the union of a word and another type. Any text is a word, unless only certain `words` are."""

    def tag_of(value: Any) -> str:
        return "word" if isinstance(value, str) and (words is None or value in words) else tag

    return Annotated[Annotated[word, Tag("word")] | Annotated[other, Tag(tag)], Discriminator(tag_of)]


_DEFAULT = SOLVERS[0]
SOLVER_OPTIONS = {kind: _options_of(solver) for kind, solver in SOLVER_OF_KIND.items()}
DEFAULT_SOLVER = SOLVER_OPTIONS[_DEFAULT().kind]()
SOLVER_FIELDS = {name for options in SOLVER_OPTIONS.values() for name in options.model_fields} - {"kind"}


def _kind(solver: Any) -> str | None:
    """Return the kind of a solver in a request: the default one, unless a kind is given."""
    kind = solver.get("kind", _DEFAULT().kind) if isinstance(solver, dict) else getattr(solver, "kind", None)
    return kind if isinstance(kind, str) else None


_KINDS = ", ".join(f'"{kind}"' for kind in SOLVER_OPTIONS)
_ANY_SOLVER: Any = Annotated[
    Union[tuple(Annotated[options, Tag(kind)] for kind, options in SOLVER_OPTIONS.items())],  # noqa: UP007 - from a list
    Discriminator(
        _kind,
        custom_error_type="solver_kind",
        custom_error_message=f'Expected one of {_KINDS} as `kind` of an object, such as {{"kind": "exact"}}. '
        "Without `kind` it is exact.",
    ),
]
AnySolver: TypeAlias = Annotated[DataclassOptions, GetPydanticSchema(lambda _, handler: handler(_ANY_SOLVER))]
