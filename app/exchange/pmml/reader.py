"""Reads linear models from PMML: RegressionModels, with fields that are derived by linear expressions."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from app.data.names import listed, shown
from app.errors import InvalidInput
from app.exchange.assembly import Feature, assembled, warnings_of_digits
from app.exchange.expression import Sum, product
from app.exchange.hints import FEATURES, decoded_hints
from app.exchange.imported import ImportedModel
from app.exchange.json_model import ColumnRecord
from app.exchange.names_given import names_given
from app.exchange.pieces import PIECES_BYTES, limited_pieces
from app.exchange.pmml.fields import Field, Fields, data_field, mining_field
from app.exchange.pmml.file import Element, child, children, is_pmml, number_of, parsed, tag_of, text_of
from app.regression.sufficient_statistics import Array

_OTHER_PARTS = ("Header", "MiningBuildTask", "DataDictionary", "TransformationDictionary")
_ONE_PER_TARGET = "x-multiModelChain"  # method of a MiningModel, an extension of JPMML
_REPLACES = ("asMissing", "asValue")  # treatments that put another value in place of an invalid one
_DERIVED = ("transformedValue", "decision")  # features of outputs that are not the prediction itself
_ELEMENT_BYTES = 60  # Bytes of memory per byte of a file whose elements are short.
_MAX_ELEMENT_BYTES = 128 << 20  # Bytes of memory for the largest number of elements.
_ATTRIBUTE_BYTES = 250  # Bytes of memory for an attribute with its name and its value.
_MAX_COEFFICIENTS = 2_000_000  # Most predictors times targets. A version has at most a tenth of them.


class _Target:
    """The coefficients of one RegressionModel, by the key of their predictors."""

    def __init__(self, name: str, model: Element, factor: float, constant: float) -> None:
        self.name = name
        tables = list(children(model, "RegressionTable"))
        if len(tables) != 1:
            raise InvalidInput(f"A RegressionModel has {len(tables)} tables. Expected one, for a regression.")
        (self.table,) = tables
        self.factor = factor
        self.intercept = number_of(self.table, "intercept", 0.0) * factor + constant


class PmmlImport:
    name = "pmml"
    media_type = "application/xml"
    extensions: tuple[str, ...] = (".pmml", ".xml")

    def matches(self, content: bytes) -> bool:
        return is_pmml(content)

    def working_bytes(self, content: bytes) -> int:
        """Return an estimate of the bytes for texts, attributes, elements and sums. The last two are limited."""
        texts = 8 * len(content) + _ATTRIBUTE_BYTES * content.count(b"=")
        return texts + min(_ELEMENT_BYTES * len(content), _MAX_ELEMENT_BYTES) + PIECES_BYTES

    def read(self, content: bytes, options: Mapping[str, str]) -> ImportedModel:
        """Return the model in a file. `targets` in the options renames the targets."""
        root = parsed(content)
        with limited_pieces():
            return _read(root, options)


def _read(root: Element, options: Mapping[str, str]) -> ImportedModel:
    outer = [each for each in children(root) if tag_of(each) not in _OTHER_PARTS]
    models = [model for each in outer for model in _regressions(each)]
    if not models:
        raise InvalidInput("The file has no model. Expected a RegressionModel.")
    dictionary = child(root, "DataDictionary")
    data = [] if dictionary is None else [data_field(each) for each in children(dictionary, "DataField")]
    fields = Fields(_active(outer, {each.name: each for each in data}), _derived(root, [*outer, *models]))
    targets = [_target(model, data) for model in models]
    sums = _columns(fields, targets)
    names = names_given(options, "targets") or [target.name for target in targets]
    if len(names) != len(targets):
        raise InvalidInput.of_parameter(
            "targets", f"The file has {len(targets)} models, and `targets` has {len(names)} names."
        )
    return _imported(root, fields, names, sums)


def _regressions(model: Element) -> Iterator[Element]:
    """Yield the regressions of a model, which sklearn2pmml puts in a MiningModel if there are several targets."""
    if tag_of(model) != "MiningModel":
        _check_model(model)
        yield model
        return
    segmentation = child(model, "Segmentation")
    if segmentation is None or segmentation.get("multipleModelMethod") != _ONE_PER_TARGET:
        raise InvalidInput(
            f"The file has a MiningModel whose models are combined. Supported: RegressionModel, or "
            f"{_ONE_PER_TARGET} of one RegressionModel for each target."
        )
    for segment in children(segmentation, "Segment"):
        found = [each for each in children(segment) if tag_of(each) != "True"]
        if len(found) != 1 or child(segment, "True") is None:
            raise InvalidInput("The file has a segment that is not one model for all rows, which is not linear.")
        _check_model(found[0])
        yield found[0]


def _check_model(model: Element) -> None:
    """Raise InvalidInput unless a model is a regression without a transformation of its result."""
    tag = tag_of(model)
    if tag != "RegressionModel":
        raise InvalidInput(f"The file has a {shown(tag)[1:-1]}, which is not supported. Supported: RegressionModel.")
    for attribute, expected in (("functionName", "regression"), ("normalizationMethod", "none")):
        found = model.get(attribute, expected)
        if found != expected:
            raise InvalidInput(
                f"The RegressionModel has {attribute} {shown(found)}, which is not linear. Supported: {expected}."
            )


def _active(models: Sequence[Element], data: Mapping[str, Field]) -> list[Field]:
    """Return the fields that the models may use. Their treatments must be the same in each model."""
    active: dict[str, dict[str, str]] = {}
    for model in models:
        schema = child(model, "MiningSchema")
        if schema is None:
            raise InvalidInput("A model has no MiningSchema.")
        for element in children(schema, "MiningField"):
            name = text_of(element, "name")
            if element.get("usageType", "active") != "active":
                continue
            if name not in data:
                raise InvalidInput(f"The model uses the field {shown(name)}, which the file does not define.")
            attributes = dict(element.attrib)
            if active.setdefault(name, attributes) != attributes:
                raise InvalidInput(f"The models of the file treat the values of {shown(name)} in different ways.")
            mining_field(data[name], element)
    return [data[name] for name in active]


def _derived(root: Element, models: Sequence[Element]) -> dict[str, Element]:
    """Return the derived fields by name. Raises InvalidInput if two differ in all but their name."""
    found: dict[str, Element] = {}
    parts = [*children(root, "TransformationDictionary")]
    parts += chain.from_iterable(children(model, "LocalTransformations") for model in models)
    for element in chain.from_iterable(children(part, "DerivedField") for part in parts):
        name = text_of(element, "name")
        if name in found and _shape(found[name]) != _shape(element):
            raise InvalidInput(f"The file derives the field {shown(name)} in two ways. Rename one of them.")
        found[name] = element
    return found


def _shape(element: Element) -> list[object]:
    """Return the tags, attributes and texts of an element and its children, to compare it."""
    return [(each.tag, dict(each.attrib), (each.text or "").strip()) for each in element.iter()]


def _target(model: Element, data: Sequence[Field]) -> _Target:
    """Return the coefficients of a model, and its target's name and scale."""
    named = [
        text_of(element, "name")
        for element in chain.from_iterable(children(each, "MiningField") for each in children(model, "MiningSchema"))
        if element.get("usageType") in ("target", "predicted")
    ]
    name = named[0] if named else model.get("targetFieldName") or model.get("modelName") or "target"
    if not named and any(field.name == name for field in data):
        name = f"{name} predicted" if model.get("targetFieldName") is None else name
    factor, constant = 1.0, 0.0
    targets = child(model, "Targets")
    for target in () if targets is None else children(targets, "Target"):
        for attribute in ("castInteger", "min", "max"):
            if target.get(attribute) is not None:
                raise InvalidInput(f"The Target has {attribute}, which is not linear. Remove it.")
        factor, constant = number_of(target, "rescaleFactor", 1.0), number_of(target, "rescaleConstant", 0.0)
    return _Target(name, model, factor, constant)


class _Predictors(NamedTuple):
    """intercepts + coefficients' columns."""

    columns: list[Sum]
    coefficients: Array  # (w, k)
    intercepts: Array  # (k,)


def _columns(fields: Fields, targets: Sequence[_Target]) -> _Predictors:
    """Return the predictors of all targets. Equal predictors of several targets are one."""
    places: dict[tuple[str, ...], int] = {}
    columns: list[Sum] = []
    entries: list[tuple[int, int, float]] = []
    for target_place, target in enumerate(targets):
        for element in children(target.table):
            key = _key(element)
            if key not in places:
                places[key] = len(columns)
                columns.append(_predictor(fields, element))
            entries.append((places[key], target_place, number_of(element, "coefficient") * target.factor))
    if len(columns) * len(targets) > _MAX_COEFFICIENTS:
        raise InvalidInput(
            f"The file has {len(columns):,} predictors and {len(targets):,} targets, which is too many coefficients. "
            f"Up to {_MAX_COEFFICIENTS:,} are supported."
        )
    coefficients = np.zeros((len(columns), len(targets)))
    for column, target_place, coefficient in entries:
        coefficients[column, target_place] += coefficient
    return _Predictors(columns, coefficients, np.array([target.intercept for target in targets]))


def _key(element: Element) -> tuple[str, ...]:
    """Return what a predictor is, without its coefficient."""
    tag = tag_of(element)
    if tag == "NumericPredictor":
        return (tag, text_of(element, "name"), element.get("exponent", "1"))
    if tag == "CategoricalPredictor":
        return (tag, text_of(element, "name"), text_of(element, "value"))
    if tag == "PredictorTerm":
        if factors := sorted(text_of(each, "field") for each in children(element, "FieldRef")):
            return (tag, *factors)
        raise InvalidInput("The RegressionTable has a PredictorTerm without fields.")
    raise InvalidInput(
        f"The RegressionTable has an element {shown(tag)[1:-1]}. Supported: NumericPredictor, CategoricalPredictor and "
        "PredictorTerm."
    )


def _predictor(fields: Fields, element: Element) -> Sum:
    tag, name, *rest = _key(element)
    if tag == "CategoricalPredictor":
        return fields.level(name, rest[0])
    if tag == "PredictorTerm":
        return product(fields.sum(each) for each in (name, *rest))
    exponent = number_of(element, "exponent", 1.0)
    if exponent != int(exponent):
        raise InvalidInput(f"The exponent of {shown(name)} is not a whole number, so it is not a term.")
    one = fields.sum(name)
    return one if exponent == 1 else one.power(int(exponent))


def _hints(root: Element) -> dict[str, ColumnRecord]:
    """Return the hints about features that Linserve writes into its files."""
    header = child(root, "Header")
    extensions = [] if header is None else children(header, "Extension")
    return decoded_hints(next((each.get("value", "") for each in extensions if each.get("name") == FEATURES), "[]"))


def _imported(root: Element, fields: Fields, targets: Sequence[str], predictors: _Predictors) -> ImportedModel:
    hints = _hints(root)
    atoms = {atom for column in predictors.columns for monomial in column.parts for atom, _ in monomial}
    used = sorted({atom.feature for atom in atoms})
    renumbered = {old: new for new, old in enumerate(used)}
    moved = [column.renumbered(renumbered) for column in predictors.columns]
    with_indicator = {atom.feature for atom in atoms if atom.kind == "missing"}
    features = [_feature(fields.fields[place], hints) for place in used]
    portable = assembled(features, targets, moved, predictors.coefficients, predictors.intercepts)
    header = child(root, "Header")
    application = None if header is None else child(header, "Application")
    program = "" if application is None else f"{application.get('name', '')} {application.get('version') or ''}"
    lost = warnings_of_digits(moved, predictors.coefficients)
    warnings = (*_warnings(fields, used, with_indicator), *_of_outputs(root), *lost)
    return ImportedModel(portable, source=f"PMML {program[:100]}".strip(), warnings=warnings)


def _feature(one: Field, hints: Mapping[str, ColumnRecord]) -> Feature:
    hint = hints.get(one.name)
    if one.kind == "category":
        na = tuple(text for text in one.na if text)
        return Feature(one.name, "category", tuple(one.levels), na, one.replacement, hint)
    kind = hint.kind if hint is not None and hint.kind == "date" and one.type == "double" else one.kind
    return Feature(one.name, kind, (), tuple(one.na) if kind == "number" else (), None, hint)


def _of_outputs(root: Element) -> Iterator[str]:
    """Yield a sentence if the file calculates something from the predictions."""
    fields = [each for each in root.iter() if tag_of(each) == "OutputField"]
    if names := [field.get("name", "") for field in fields if any(children(field)) or field.get("feature") in _DERIVED]:
        yield f"The file calculates these outputs from the prediction. Here they are left out: {listed(names)}."


def _warnings(fields: Fields, used: Sequence[int], with_indicator: set[int]) -> Iterator[str]:
    categories = [place for place in used if fields.fields[place].kind == "category"]
    opened = [fields.fields[place] for place in categories if not fields.fields[place].is_closed]
    for replaced in (False, True):
        if names := [one.name for one in opened if (one.invalid in _REPLACES) == replaced]:
            yield (
                f"In the file, an unknown level {'is replaced' if replaced else 'has no effect'}. Here it is an error, "
                f"unless a request has the option `unknown`. Categories: {listed(names)}."
            )
    bounded = [one.name for place in used if (one := fields.fields[place]).has_ranges and one.invalid != "asIs"]
    if bounded:
        yield (
            "In the file, values outside the ranges of these fields are invalid. Here they are used like any other "
            f"value: {listed(bounded)}."
        )
    silent = [
        fields.fields[place].name
        for place in categories
        if not (fields.fields[place].returns_invalid or fields.fields[place].replacement or place in with_indicator)
    ]
    if silent:
        yield (
            "In the file, a missing value of a category has no effect. Here it is an error. Categories: "
            f"{listed(silent)}."
        )
    unused = [each.name for place, each in enumerate(fields.fields) if place not in set(used)]
    if unused:
        yield f"The model does not use these fields, so they are not features of the version: {listed(unused)}."
