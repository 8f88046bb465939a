"""Check the form of the diagnostics in a card, which pages and clients take apart.

The card of a version of this service has them from `app.regression.diagnostics`. One that was edited may have anything.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta

MAX_BINS, MAX_POINTS, MAX_ROWS, MAX_PARTS = 64, 101, 20, 64
Edges: TypeAlias = Annotated[list[float], Meta(min_length=2, max_length=MAX_BINS + 1)]
Counts: TypeAlias = Annotated[list[Annotated[int, Meta(ge=0)]], Meta(min_length=1, max_length=MAX_BINS)]
Text: TypeAlias = Annotated[str, Meta(max_length=1000)]


class _Leverage(msgspec.Struct):
    edges: Edges
    counts: Counts
    maximum: float
    threshold: float
    ones: int


class _Residuals(msgspec.Struct):
    fitted_edges: Edges
    residual_edges: Edges
    counts: Annotated[list[Counts], Meta(min_length=1, max_length=MAX_BINS)]


class _Quantiles(msgspec.Struct):
    theoretical: Annotated[list[float], Meta(max_length=MAX_POINTS)]
    observed: Annotated[list[float], Meta(max_length=MAX_POINTS)]
    relative_error: float


class _Row(msgspec.Struct):
    row: int
    distance: float
    leverage: float
    studentized_residual: float | None
    file: Text | None = None


class _Test(msgspec.Struct):
    lm: float
    df: int
    p_value: float
    f: float
    f_p_value: float


class _Partial(msgspec.Struct):
    edges: Edges
    means: Annotated[list[float | None], Meta(min_length=1, max_length=MAX_BINS)]
    counts: Counts


class _Target(msgspec.Struct):
    residuals: _Residuals | None
    quantiles: _Quantiles | None
    cooks_distance: Annotated[list[_Row], Meta(max_length=MAX_ROWS)] | None
    durbin_watson: float | None
    breusch_pagan: _Test | None
    partial_residuals: Annotated[dict[str, _Partial], Meta(max_length=MAX_PARTS)] | None


class _Diagnostics(msgspec.Struct):
    rows: int
    leverage: _Leverage | None
    targets: Annotated[dict[str, _Target], Meta(max_length=MAX_PARTS)]
    notes: Annotated[list[Text], Meta(max_length=MAX_PARTS)]
    unavailable: dict[str, Text]


def diagnostics_faults(diagnostics: dict[str, Any] | None, targets: tuple[str, ...]) -> Iterator[str]:
    """Yield what is wrong with the diagnostics of a version with these targets."""
    if diagnostics is None:
        return
    try:
        found = msgspec.convert(diagnostics, type=_Diagnostics)
    except msgspec.ValidationError:
        yield "its diagnostics have another form"
        return
    if not set(found.targets) <= set(targets):
        yield "its diagnostics have other targets"
    if not all(_fit(edges, values) for edges, values in _histograms(found)):
        yield "the bins of its diagnostics do not fit their edges"


def _fit(edges: list[float], values: list[Any]) -> bool:
    return len(edges) == len(values) + 1 and all(low <= high for low, high in pairwise(edges))


def _histograms(found: _Diagnostics) -> Iterator[tuple[list[float], list[Any]]]:
    if found.leverage is not None:
        yield found.leverage.edges, found.leverage.counts
    for target in found.targets.values():
        if target.residuals is not None:
            yield target.residuals.fitted_edges, target.residuals.counts
            yield from ((target.residuals.residual_edges, counts) for counts in target.residuals.counts)
        if target.quantiles is not None:
            theoretical, observed = target.quantiles.theoretical, target.quantiles.observed
            yield [float(place) for place in range(len(theoretical) + 1)], observed
        for partial in (target.partial_residuals or {}).values():
            yield partial.edges, partial.means
            yield partial.edges, partial.counts
