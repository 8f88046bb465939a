"""A version file from elsewhere is read whole and consistent, or refused with a reason."""

import io
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from foreign import Change, Tensors, rewritten
from hypothesis import given, settings
from hypothesis import strategies as st
from trained import model_from, version_of

from app.data.columns.schema import Column, TableSchema
from app.errors import Conflict, InvalidInput
from app.registry.merge_export import encode_for_merge
from app.registry.untrusted import ForeignFile, ForeignVersion
from app.registry.version_file import Version, encode
from app.regression.downdate import downdate
from app.regression.solvers import Exact
from app.regression.sufficient_statistics import SufficientStatistics, WeightKind
from app.regression.summaries import summarise
from app.regression.training_batch import TrainingBatch

RNG = np.random.default_rng(0)
LEVELS = RNG.integers(3, size=200)
X = np.column_stack([RNG.normal(5, 2, 200), LEVELS == 1, LEVELS == 2])
Y = X @ [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]] + RNG.normal(size=(200, 2))
TABLE = TableSchema(
    (Column("age"), Column("city", "category", ("Bergen", "Oslo", "Turku"))), (Column("rent"), Column("sold"))
)
BLOCKS = (slice(1, 3),)


def statistics(
    rows: slice = slice(None), weights: Any = None, weight_kind: WeightKind = "precision"
) -> SufficientStatistics:
    given_weights = None if weights is None else weights[rows]
    return summarise([TrainingBatch(X[rows], Y[rows], given_weights)], weight_kind=weight_kind, blocks=BLOCKS)


def version(summary: SufficientStatistics) -> Version:
    model = replace(
        model_from(summary, Exact()), features=TABLE.encoded_features, targets=("rent", "sold"), stored_rank=None
    )
    return version_of(
        model,
        features=("age", "city"),
        table=TABLE,
        discounted=summary.discounted,
        untracked=summary.untracked,
        weight_kind=summary.weight_kind,
    )


def content_of(summary: SufficientStatistics) -> bytes:
    found = version(summary)
    return encode(found.card, found.model)


def read(content: bytes) -> ForeignVersion:
    return ForeignFile(io.BytesIO(content), 0, len(content), "File 1").read()


CONTENT = content_of(statistics())
WEIGHTS = RNG.uniform(0.1, 9, 200)

SUMMARIES: dict[str, Callable[[], SufficientStatistics]] = {
    "plain": statistics,
    "weighted": lambda: statistics(weights=WEIGHTS),
    "counted": lambda: statistics(weights=np.ceil(WEIGHTS), weight_kind="frequency"),
    "decayed": lambda: statistics().discounted_by(0.25),
    "updated after a decay": lambda: statistics(slice(100)).discounted_by(0.5).merge(statistics(slice(100, 200))),
    "after a forget": lambda: downdate(statistics(), statistics(slice(60)), blocks=BLOCKS),
    "with weights, after a forget": lambda: downdate(
        statistics(weights=WEIGHTS), statistics(slice(60), WEIGHTS), blocks=BLOCKS
    ),
    "of large values": lambda: summarise([TrainingBatch(X * [1e9, 1, 1] + [1e15, 0, 0], Y)], blocks=BLOCKS),
}


@pytest.mark.parametrize("name", SUMMARIES)
def test_a_file_of_this_service_is_read_with_all_its_statistics(name: str) -> None:
    summary = SUMMARIES[name]()

    found = read(content_of(summary))

    for field in ("rows", "effective_rows", "weight_kind", "discounted", "log_weights", "operations"):
        assert getattr(found.statistics, field) == getattr(summary, field), field
    for field in ("shift", "scale", "factor", "minimum", "maximum", "indicator_rows"):
        np.testing.assert_array_equal(getattr(found.statistics, field), getattr(summary, field))
    assert found.card.columns == TABLE.encoded_features


@pytest.mark.parametrize("name", SUMMARIES)
def test_a_file_for_a_merge_is_read_and_has_no_value_of_a_row(name: str) -> None:
    summary = SUMMARIES[name]()

    found = read(encode_for_merge(version(summary), 20)).statistics

    assert np.isnan(found.minimum[0])
    assert np.isnan(found.maximum[0])
    assert not np.isin(found.shift[[0, 3, 4]], np.column_stack([X, Y])[:, [0, 3, 4]]).any()
    np.testing.assert_allclose(found.mean, summary.mean, rtol=1e-12)
    np.testing.assert_allclose(
        np.abs(found.centred_factor), np.abs(summary.centred_factor), rtol=1e-9, atol=1e-9 * summary.scale.max()
    )
    if summary.removed is not None:
        assert found.removed is not None
        assert np.count_nonzero(found.removed) <= len(found.removed)
        # It still bounds all rows that were taken out.
        removed = summary.transform(summary.removed, found.shift, found.scale)
        assert np.linalg.eigvalsh(found.removed.T @ found.removed - removed.T @ removed).min() > -1e-6


def test_a_file_for_a_merge_needs_enough_rows_of_the_version_and_of_each_level() -> None:
    with pytest.raises(Conflict, match="19 row"):
        encode_for_merge(version(statistics(slice(19))), 20)
    with pytest.raises(Conflict, match="reduced to the weight of 2"):
        encode_for_merge(version(statistics().discounted_by(0.01)), 20)
    rare = X.copy()
    rare[30:, 1:] = 0
    with pytest.raises(Conflict, match=r'2 level\(s\).*"city" 2'):
        encode_for_merge(version(summarise([TrainingBatch(rare, Y)], blocks=BLOCKS)), 20)


def of_tensor(name: str, change: Callable[[Any], Any]) -> Change:
    def changed(_: dict[str, Any], tensors: Tensors) -> None:
        tensors[f"statistics.{name}"] = np.asarray(change(tensors[f"statistics.{name}"]))

    return changed


def of_card(**values: Any) -> Change:
    return lambda card, _: card.update(values)


def put(index: Any, value: float) -> Callable[[Any], Any]:
    def change(tensor: Any) -> Any:
        tensor[index] = value
        return tensor

    return change


def without(name: str) -> Change:
    def changed(_: dict[str, Any], tensors: Tensors) -> None:
        del tensors[name]

    return changed


def of_column(index: int, **values: Any) -> Change:
    return lambda card, _: card["table"]["features"][index].update(values)


MANY = [f"level {number}" for number in range(2001)]
WRONG: dict[str, tuple[Change, str]] = {
    "no rows": (of_card(rows=0), "it has 0 rows"),
    "more rows than can be counted": (of_card(rows=2**53 + 1), "card that cannot be read"),
    "fewer rows than in the factor": (of_card(rows=100), "effective number of rows"),
    "rows as text": (of_card(rows="200"), "card that cannot be read"),
    "format of the future": (of_card(schema=99), "format 99"),
    "format of the past": (of_card(schema=2), "format 2"),
    "no features": (of_card(features=[]), "At least one feature"),
    "a name twice": (of_card(features=["age", "age"]), "more than once"),
    "a target that is a feature": (of_card(targets=["age", "sold"]), "both a feature and a target"),
    "an invisible name": (of_card(features=["age\u200b", "city"]), "invisible"),
    "a long name": (of_card(features=["a" * 129, "city"]), "Shorten"),
    "other names than in the table": (of_card(features=["height", "city"]), "other features"),
    "a term of nothing": (of_card(terms=["age", "height"]), "terms cannot be made"),
    "a term of a level": (of_card(terms=["age", "age:city"]), "terms cannot be made"),
    "too many terms": (of_card(terms=["age"] * 2001), "more than 2000"),
    "a negative penalty": (of_card(solver={"kind": "exact", "l2": -1}), "card that cannot be read"),
    "weights of another kind": (of_card(weight_kind="importance"), "card that cannot be read"),
    "counted weights": (
        lambda card, tensors: (card.update(weight_kind="frequency"), put(0, 3.0)(tensors["statistics.log_weights"])),
        "logarithms",
    ),
    "a kind that does not exist": (of_column(0, kind="complex"), "card that cannot be read"),
    "levels of a number": (of_column(0, levels=["a"]), "levels and is no category"),
    "no levels": (of_column(1, levels=[]), "category without levels"),
    "a level twice": (of_column(1, levels=["a", "b", "b"]), "one twice"),
    "too many levels": (of_column(1, levels=MANY), "too many levels"),
    "a long level": (of_column(1, levels=["a", "b", "c" * 257]), "too long"),
    "another number of levels": (of_column(1, levels=["a", "b"]), "another shape"),
    "constant of a gap as text": (of_column(0, missing="fill", fill="12"), "gaps that is not a number"),
    "no constant": (of_column(0, missing="indicator"), "no constant"),
    "no factor": (without("statistics.factor"), "lacks statistics.factor"),
    "no level counts": (without("statistics.indicator_rows"), "numbers of rows of the levels are missing"),
    "an unknown tensor": (lambda _, tensors: tensors.update(x=np.zeros(1)), "header cannot be read"),
    "single precision": (of_tensor("shift", lambda shift: shift.astype(np.float32)), "header cannot be read"),
    "another shape": (of_tensor("shift", lambda shift: shift[:-1]), "another shape"),
    "NaN in the factor": (of_tensor("factor", put((0, 0), np.nan)), "factor is not finite"),
    "infinity in the factor": (of_tensor("factor", put((1, 1), np.inf)), "factor is not finite"),
    "a full factor": (of_tensor("factor", put((3, 1), 1e-300)), "not upper triangular"),
    "a huge factor": (of_tensor("factor", put((1, 1), 1e200)), "factor is too large"),
    "no weight": (of_tensor("factor", put((0, 0), 0.0)), "sum of the weights"),
    "too little weight": (of_tensor("log_weights", put(0, 100.0)), "too large for their sum"),
    "an infinite logarithm": (of_tensor("log_weights", put(0, -np.inf)), "logarithms"),
    "a removed row with NaN": (
        lambda _, tensors: tensors.update({"statistics.removed": np.full((6, 6), np.nan)}),
        "removed is not finite",
    ),
    "a scale of 3": (of_tensor("scale", put(0, 3.0)), "power of two"),
    "a scale of 0": (of_tensor("scale", put(0, 0.0)), "power of two"),
    "a negative scale": (of_tensor("scale", put(0, -2.0)), "power of two"),
    "a subnormal scale": (of_tensor("scale", put(0, 2.0**-1074)), "power of two"),
    "a shift of NaN": (of_tensor("shift", put(0, np.nan)), "shift"),
    "operations": (of_tensor("operations", put(0, 1e15)), "operations"),
    "half an operation": (of_tensor("operations", put(0, 0.5)), "operations"),
    "negative effective rows": (of_tensor("effective_rows", put(0, -200.0)), "effective number of rows"),
    "more effective rows": (
        lambda card, tensors: (card.update(discounted=True), put(0, 201.0)(tensors["statistics.effective_rows"])),
        "effective number of rows",
    ),
    "a range the wrong way round": (of_tensor("minimum", put(0, 1e6)), "larger than the maximum"),
    "half a range": (of_tensor("minimum", put(0, np.nan)), "not both"),
    "a range without its mean": (of_tensor("maximum", put(0, -1.0)), "larger than the maximum|outside the range"),
    "a range too narrow": (
        lambda _, tensors: (
            put(0, 4.9)(tensors["statistics.minimum"]),
            put(0, 5.1)(tensors["statistics.maximum"]),
        ),
        "vary more than|outside the range",
    ),
    "half a row": (of_tensor("indicator_rows", put(1, 1.5)), "not whole"),
    "a level with too many rows": (of_tensor("indicator_rows", put(1, 201)), "more rows than there are"),
    "a level with other rows": (of_tensor("indicator_rows", put(1, 3)), "not the sum of its column"),
    "a negative level": (of_tensor("indicator_rows", put(1, -1)), "not those of its categories"),
    "a number as a level": (of_tensor("indicator_rows", put(0, 5)), "not those of its categories"),
    "an indicator of 2": (
        lambda _, tensors: (
            put(1, 2 * tensors["statistics.scale"][1])(tensors["statistics.scale"]),
            put(1, np.nan)(tensors["statistics.minimum"]),
            put(1, np.nan)(tensors["statistics.maximum"]),
        ),
        "other values than 0 and 1",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_contradicts_itself_is_refused_with_the_reason(name: str) -> None:
    change, reason = WRONG[name]

    with pytest.raises(InvalidInput, match=reason) as error:
        read(rewritten(CONTENT, change))

    assert error.value.message.startswith("File 1 ")


def with_header(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 8,
        b"PK\x03\x04" + bytes(100),
        (2**63).to_bytes(8, "little") + bytes(100),
        CONTENT[:-1],
        CONTENT + b"\0",
        CONTENT[:100],
        with_header(b"[" * 100_000),
        with_header(b'{"__metadata__":{"card":"{}","sha256":""}}'),
        with_header(b'{"__metadata__":{"card":"\\ud800","sha256":""}}'),
        with_header(b'{"__metadata__":{"card":"' + b"{" * 100_001 + b'","sha256":""}}'),
        with_header(b'{"coef":{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,8]}}'),
        with_header(b'{"coef":{"dtype":"F64","shape":[-1],"data_offsets":[8,0]}}'),
        with_header(b'{"coef":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}'),
    ],
    ids=itertools.count(),
)
def test_bytes_that_are_no_version_are_refused(content: bytes) -> None:
    with pytest.raises(InvalidInput, match="File 1 "):
        read(content)


@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
@settings(max_examples=300)
def test_a_file_with_one_wrong_byte_is_refused_or_the_same(place: int, change: int) -> None:
    content = bytearray(CONTENT)
    content[place] ^= change

    try:
        found = read(bytes(content))
    except InvalidInput as error:
        assert error.message.startswith("File 1 ")  # noqa: PT017 - both outcomes are possible
    else:
        np.testing.assert_array_equal(found.statistics.factor, read(CONTENT).statistics.factor)


def test_a_header_is_not_read_if_it_is_too_long() -> None:
    class Counting(io.BytesIO):
        most = 0

        def read(self, size: int | None = -1) -> bytes:
            self.most = max(self.most, size or 0)
            return super().read(size)

    file = Counting(with_header(b" " * (17 << 20)))

    with pytest.raises(InvalidInput, match="too long"):
        ForeignFile(file, 0, len(file.getvalue()), "File 1")
    assert file.most == 8
