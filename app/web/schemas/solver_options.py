"""The options of the solvers in a request, made from the dataclasses of `app.regression.solvers`.

A solver that is added to SOLVERS is accepted in JSON and in queries, and documented, without a change here.
"""

import dataclasses
import types
from collections.abc import Iterator
from inspect import cleandoc
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias, Union, cast, get_args, get_origin, get_type_hints

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    GetPydanticSchema,
    ModelWrapValidatorHandler,
    Tag,
    TypeAdapter,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from app.regression.solvers import SOLVERS, Solver
from app.regression.solvers.base import Keyword
from app.web.schemas.openapi_schema import Schema

_OPTION_OF_ANOTHER_KIND = (
    "`{option}` is an option of the solver {owner}, and this solver is {chosen}. Choose {owner} "
    '(in JSON `"kind": "{owner}"`, in a query `solver={owner}`), or leave `{option}` out.'
)


class Options(Schema):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Values(Options):
    """Options that become a dataclass. Its checks are made here too."""

    model_config = ConfigDict(use_attribute_docstrings=False)  # The search for their source would be slow and in vain.

    made: ClassVar[Any]  # the dataclass

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.value()
        return self

    def value(self) -> Any:
        """Return the dataclass. An option that is a keyword has its default value there."""
        hints = get_type_hints(self.made, include_extras=True)
        options = {name: getattr(self, name) for name in type(self).model_fields}
        return self.made(
            **{
                name: option.value() if isinstance(option, _Values) else option
                for name, option in options.items()
                if option not in [keyword.word for keyword in _keywords(hints[name])]
            }
        )


class SolverOptions(_Values):
    """The options of one solver."""

    made: ClassVar[type[Solver]]

    def solver(self) -> Solver:
        return cast(Solver, self.value())

    @model_validator(mode="wrap")
    @classmethod
    def _name_the_kind_of_other_options(cls, values: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return validate(values)
        except ValidationError as error:
            lines = [cls._explained(line) for line in error.errors(include_url=False)]
            raise ValidationError.from_exception_data(error.title, lines) from None

    @classmethod
    def _explained(cls, line: ErrorDetails) -> InitErrorDetails:
        """Return the error again. An option of another kind is named with its kind."""
        explained = InitErrorDetails(type=line["type"], loc=line["loc"], input=line["input"], ctx=line.get("ctx", {}))
        name = line["loc"][-1] if line["type"] == "extra_forbidden" else None
        owner = next((kind for kind, options in SOLVER_OPTIONS.items() if name in options.model_fields), None)
        if owner is not None:
            (chosen,) = (kind for kind, options in SOLVER_OPTIONS.items() if options is cls)
            words = {"option": name, "owner": owner, "chosen": chosen}
            explained["type"] = PydanticCustomError("option_of_another_kind", _OPTION_OF_ANOTHER_KIND, words)
        return explained


def without_default(schema: dict[str, Any]) -> None:
    """Drop the default from the OpenAPI document.

    A client that sent it would override the current version's value. Generators do not understand it for a union.
    """
    schema.pop("default", None)


def _options_of(made: Any, base: type[_Values], required: tuple[str, ...] = ()) -> type[_Values]:
    """Return the model whose options are the fields of a dataclass, with their bounds, docstrings and defaults."""
    documented = TypeAdapter(made).json_schema()["properties"]
    inherited = getattr(made, "inherited", ())
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(made):
        annotation = get_type_hints(made, include_extras=True)[field.name]
        option = _of_either_type(annotation)
        fields[field.name] = (
            option,
            Field(
                ... if field.name in required else field.default,
                description=documented[field.name].get("description"),
                json_schema_extra=without_default if option is not annotation or field.name in inherited else None,
            ),
        )
    model = create_model(f"{made.__name__}Options", __base__=base, __doc__=cleandoc(made.__doc__), **fields)
    model.made = made
    if extra := getattr(made, "__pydantic_config__", {}).get("json_schema_extra"):
        model.model_config["json_schema_extra"] = extra
        model.model_rebuild(force=True)
    return model


def _of_either_type(annotation: Any) -> Any:
    """Return the type of an option that is either a word or something else, so that faults are those of one of both."""
    for keyword in _keywords(annotation):
        value, *bounds = get_args(annotation)
        bounds.remove(keyword)
        return _tagged(Literal[keyword.word], Annotated[value, *bounds], "number", {keyword.word})
    words = [part for part in get_args(annotation) if get_origin(part) is Literal]
    others = [part for part in get_args(annotation) if dataclasses.is_dataclass(part)]
    if get_origin(annotation) in (Union, types.UnionType) and words and others:
        return _tagged(words[0], _options_of(others[0], _Values), "object", None)
    return annotation


def _keywords(annotation: Any) -> Iterator[Keyword]:
    yield from (item for item in get_args(annotation) if isinstance(item, Keyword))


def _tagged(word: Any, other: Any, tag: str, words: set[str] | None) -> Any:
    """Return the union of a word and another type. Any text is a word, unless only certain `words` are."""

    def tag_of(value: Any) -> str:
        return "word" if isinstance(value, str) and (words is None or value in words) else tag

    return Annotated[Annotated[word, Tag("word")] | Annotated[other, Tag(tag)], Discriminator(tag_of)]


_DEFAULT = SOLVERS[0]
SOLVER_OPTIONS: dict[str, type[SolverOptions]] = {
    solver().kind: cast(
        type[SolverOptions], _options_of(solver, SolverOptions, () if solver is _DEFAULT else ("kind",))
    )
    for solver in SOLVERS
}
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
AnySolver: TypeAlias = Annotated[SolverOptions, GetPydanticSchema(lambda _, handler: handler(_ANY_SOLVER))]
