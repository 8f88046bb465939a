"""Writes a model as PMML 4.4: a RegressionModel for each target.

PMML has one target per RegressionModel, and a file may have several models.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from xml.etree import ElementTree as ET

from app import __version__
from app.data.columns.schema import MISSING_LEVEL, Column, TableSchema
from app.data.names import shown
from app.errors import NotExportable
from app.exchange.column_marks import fills_gaps, number_for_gaps, text_marks
from app.exchange.hints import FEATURES, encoded_hints
from app.exchange.left_behind import left_behind
from app.exchange.portable import PortableModel
from app.registry.version_file import Version
from app.regression.terms import Factors, parse_terms

NAMESPACE = "http://www.dmg.org/PMML-4_4"
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
MAX_TABLE_ENTRIES = 100_000  # Coefficients of all targets, each of which is an element.


class PmmlExport:
    name = "pmml"
    media_type = "application/xml"
    extension = ".pmml"
    options: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    texts: Mapping[str, str] = MappingProxyType({})

    def not_carried(self, version: Version) -> tuple[str, ...]:
        """Return a sentence for each part of this version that the format cannot carry. The file repeats them."""
        return (*left_behind(version), *_not_carried(version.table))

    def write(self, version: Version, options: Mapping[str, str]) -> bytes:  # noqa: ARG002 - the format has none
        """Return the file. Raises NotExportable if a text has characters that XML cannot hold."""
        portable = PortableModel.of(version)
        if portable.coef.size > MAX_TABLE_ENTRIES:
            raise NotExportable(
                f"A PMML file would have {portable.coef.size:,} coefficients, each in an element of its own. Up to "
                f"{MAX_TABLE_ENTRIES:,} are written. Export the model as ONNX instead."
            )
        return _Document(portable, self.not_carried(version)).content


def _not_carried(table: TableSchema) -> Iterator[str]:
    kinds = {column.kind for column in table.features}
    if "category" in kinds:
        yield "An unknown level gives an invalid result."
    if "date" in kinds:
        yield "Dates are doubles: days since 1970-01-01 UTC."
    if len(table.targets) > 1:
        yield (
            f"PMML has one target per model, so the file has {len(table.targets)} models. Programs that read one model "
            "read the first."
        )


class _Document:
    """The file under construction. `fields` has the name of the field of each column of the design."""

    def __init__(self, portable: PortableModel, not_carried: Sequence[str]) -> None:
        self._portable = portable
        self._taken = {column.name for column in portable.table.numbers}
        self._derived: list[ET.Element] = []
        self._fields = dict(self._columns())
        self._factors: list[Factors] = [((index, 1),) for index in range(len(portable.columns))]
        if portable.terms:
            self._factors = parse_terms(portable.columns, portable.table.encoded_features)
        self._encoded = portable.table.encoded_features
        self._of_level = {
            f"{column.name}[{level}]": (column, level)
            for column in portable.table.features
            if column.kind == "category"
            for level in column.levels[1:]
        }
        for factors in self._factors:
            if len(factors) > 1:
                for index, _ in factors:
                    self._field(self._encoded[index])
        self._centred = () if portable.centre is None else tuple(self._centred_fields(portable.centre.tolist()))
        root = ET.Element("PMML", {"xmlns": NAMESPACE, "version": "4.4"})
        self._header(root, not_carried)
        self._dictionary(root)
        if self._derived:
            ET.SubElement(root, "TransformationDictionary").extend(self._derived)
        for place in range(len(portable.targets)):
            self._model(root, place)
        ET.indent(root)
        self.content: bytes = ET.tostring(root, "utf-8", xml_declaration=True)

    def _unique(self, base: str) -> str:
        name, number = base, 2
        while name in self._taken:
            name, number = f"{base} {number}", number + 1
        self._taken.add(name)
        return name

    def _derive(self, base: str, expression: ET.Element) -> str:
        """Add a derived number, and return its name."""
        name = self._unique(base)
        field = ET.Element("DerivedField", name=_text(name), optype="continuous", dataType="double")
        field.append(expression)
        self._derived.append(field)
        return name

    def _columns(self) -> Iterator[tuple[str, str]]:
        """Yield the columns that are numbers, with the names of their fields."""
        for column in self._portable.table.features:
            if column.kind != "category":
                yield column.name, self._number(column)
            if column.missing == "indicator":
                is_missing = _apply("if", _apply("isMissing", _reference(column.name)), _constant(1.0), _constant(0.0))
                name = f"{column.name}[{MISSING_LEVEL}]"
                yield name, self._derive(name, is_missing)

    def _number(self, column: Column) -> str:
        fill = number_for_gaps(column)
        if column.kind == "boolean":
            is_true = ET.Element("NormDiscrete", field=_text(column.name), value="true")
            if column.missing == "indicator" and fill is not None:
                is_true.set("mapMissingTo", repr(fill))
            return self._derive(f"{column.name} as a number", is_true)
        if column.missing == "indicator" and fill is not None:
            return self._derive(f"{column.name} without gaps", _reference(column.name, fill))
        return column.name

    def _field(self, name: str) -> str:
        """Return the field of a column of the design, which is derived for a level on its first use in a product."""
        if name not in self._fields:
            column, level = self._of_level[name]
            is_level = ET.Element("NormDiscrete", field=_text(column.name), value=_text(level))
            if column.missing == "indicator":
                is_level.set("mapMissingTo", "0")
            self._fields[name] = self._derive(name, is_level)
        return self._fields[name]

    def _centred_fields(self, centre: Sequence[float]) -> Iterator[str]:
        """Yield a field for each column of the model, minus its centre."""
        for factors, middle, name in zip(self._factors, centre, self._portable.columns, strict=True):
            powers = [_power(self._field(self._encoded[index]), power) for index, power in factors]
            product = powers[0]
            for other in powers[1:]:
                product = _apply("*", product, other)
            yield self._derive(f"{name} centred", _apply("-", product, _constant(middle)))

    def _header(self, root: ET.Element, not_carried: Sequence[str]) -> None:
        about = self._portable.description
        description = f"Model {about.get('model', '')}, version {about.get('version', '')}"
        header = ET.SubElement(root, "Header", copyright="", description=_text(description))
        _extend(header, FEATURES, encoded_hints(self._portable.table.features))
        for sentence in not_carried:
            _extend(header, "linserve.not_carried", sentence)
        ET.SubElement(header, "Application", name="Linserve", version=__version__)
        if created := about.get("created_at"):
            ET.SubElement(header, "Timestamp").text = _text(created)

    def _dictionary(self, root: ET.Element) -> None:
        table = self._portable.table
        columns = (*table.features, *table.targets)
        dictionary = ET.SubElement(root, "DataDictionary", numberOfFields=str(len(columns)))
        for column in columns:
            _data_field(dictionary, column, is_target=column in table.targets)

    def _model(self, root: ET.Element, place: int) -> None:
        """Add the model of one target."""
        portable, target = self._portable, self._portable.targets[place]
        model = ET.SubElement(root, "RegressionModel", modelName=_text(target), functionName="regression")
        schema = ET.SubElement(model, "MiningSchema")
        for column in portable.table.features:
            _mining_field(schema, column)
        ET.SubElement(schema, "MiningField", name=_text(target), usageType="target")
        start = portable.intercept if portable.centre is None or portable.start is None else portable.start
        table = ET.SubElement(model, "RegressionTable", intercept=repr(float(start[place])))
        coefficients = [repr(coefficient) for coefficient in portable.coef[place].tolist()]
        # The schema wants numbers first, then levels, then products.
        if self._centred:
            entries = list(map(_numeric, self._centred, coefficients))
        else:
            entries = list(map(self._entry, self._factors, coefficients))
        entries += self._unused()
        order = ("NumericPredictor", "CategoricalPredictor", "PredictorTerm")
        table.extend(sorted(entries, key=lambda entry: order.index(entry.tag)))

    def _entry(self, factors: Factors, coefficient: str) -> ET.Element:
        """Return the element of one column of the model."""
        (index, power), *others = factors
        name = self._encoded[index]
        if others:
            term = ET.Element("PredictorTerm", coefficient=coefficient)
            for place, times in factors:
                term.extend(_reference(self._field(self._encoded[place])) for _ in range(times))
            return term
        if name in self._of_level and name not in self._fields and power == 1:
            column, level = self._of_level[name]
            return _level(column, level, coefficient)
        return _numeric(self._field(name), coefficient, power)

    def _unused(self) -> Iterator[ET.Element]:
        """Yield a predictor for each feature in no column. Evaluators check only the fields that are used."""
        used = {self._encoded[index] for factors in self._factors for index, _ in factors}
        for column in self._portable.table.features:
            if used.isdisjoint(column.encoded_names):
                if column.kind == "category":
                    yield _level(column, column.levels[0], "0.0")
                else:
                    yield _numeric(self._field(column.name), "0.0")


def _text(text: str) -> str:
    """Return a text that XML can hold. Raises NotExportable for other texts."""
    if _NOT_XML.search(text):
        raise NotExportable(f"XML cannot hold a character of {shown(text)}. Rename it, or choose another format.")
    return text


def _numeric(field: str, coefficient: str, power: int = 1) -> ET.Element:
    exponent = {"exponent": str(power)} if power > 1 else {}
    return ET.Element("NumericPredictor", {"name": _text(field), **exponent, "coefficient": coefficient})


def _level(column: Column, level: str, coefficient: str) -> ET.Element:
    return ET.Element("CategoricalPredictor", name=_text(column.name), value=_text(level), coefficient=coefficient)


def _extend(parent: ET.Element, name: str, value: str) -> None:
    ET.SubElement(parent, "Extension", name=name, value=_text(value))


def _constant(value: float) -> ET.Element:
    element = ET.Element("Constant", dataType="double")
    element.text = repr(float(value))
    return element


def _reference(name: str, fill: float | None = None) -> ET.Element:
    element = ET.Element("FieldRef", field=_text(name))
    if fill is not None:
        element.set("mapMissingTo", repr(fill))
    return element


def _apply(function: str, *arguments: ET.Element) -> ET.Element:
    element = ET.Element("Apply", function=function)
    element.extend(arguments)
    return element


def _power(name: str, power: int) -> ET.Element:
    return _reference(name) if power == 1 else _apply("pow", _reference(name), _constant(power))


def _data_field(dictionary: ET.Element, column: Column, *, is_target: bool) -> None:
    """Add a column of the table, with its levels and the values that mark a gap."""
    types = {"category": "string", "boolean": "boolean"}
    is_number = is_target or column.kind not in types
    field = ET.SubElement(
        dictionary,
        "DataField",
        name=_text(column.name),
        optype="continuous" if is_number else "categorical",
        dataType="double" if is_number else types[column.kind],
    )
    if is_target:
        return
    if column.kind == "date":
        field.set("displayName", f"{_text(column.name)}, days since 1970-01-01 UTC")
    levels = ("true", "false") if column.kind == "boolean" else column.levels
    for level in levels:
        ET.SubElement(field, "Value", value=_text(level))
    marks = text_marks(column) if column.kind == "category" else column.na if column.kind == "number" else ()
    for mark in marks:
        ET.SubElement(field, "Value", value=_text(mark), property="missing")


def _mining_field(schema: ET.Element, column: Column) -> None:
    """Add a feature, with the treatment of its gaps. An unknown level is invalid."""
    field = ET.SubElement(
        schema, "MiningField", name=_text(column.name), usageType="active", invalidValueTreatment="returnInvalid"
    )
    if not fills_gaps(column):
        field.set("missingValueTreatment", "returnInvalid")
    elif column.missing == "fill":
        fill = number_for_gaps(column) if column.kind != "category" else None
        text = str(column.fill) if fill is None else repr(fill)
        if column.kind == "boolean":
            text = "true" if fill else "false"
        field.set("missingValueReplacement", _text(text))
        field.set("missingValueTreatment", "asValue")
