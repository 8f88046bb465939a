"""The card of a new version: its metrics, its warnings, and its history."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from app.data.names import MAX_NAME_LENGTH
from app.registry.fit_card import bounds_of, metrics_of, warnings_of
from app.registry.model_card import ModelCard, shares_after
from app.regression.fit import FitResult
from app.regression.precision import precision_loss
from app.regression.solvers import Exact
from app.training.dataset import RowsRead
from app.training.gaps import gaps_listed
from app.training.parent import BaseVersion
from app.training.request import TrainingRequest

MAX_UNUSED_BYTES = 1 << 18  # size of the names of unused columns in a card, in UTF-8


def make_card(request: TrainingRequest, result: FitResult, base: BaseVersion | None, rows: RowsRead) -> ModelCard:
    """Return the card of a new version, with the fields that follow from its rows and their fit."""
    model, statistics, design = result.model, result.statistics, result.optimum.design
    tracked = not statistics.untracked
    return ModelCard(
        model=request.model,
        version=0,  # the registry gives the number
        features=request.features,
        gaps=rows.gaps_by_column,
        targets=request.targets,
        created_at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        job=None,
        parent=None,
        upload=request.upload,
        mode=request.mode,
        solver=result.solver,
        rows=statistics.rows,
        dropped_rows=rows.dropped,
        rank=design.rank,
        condition_number=design.condition_number,
        metrics=metrics_of(
            model,
            design,
            result.validation.result if result.validation else None,
            optimum_norms=None if isinstance(result.solver, Exact) else result.optimum.residual_norms,
        ),
        terms=request.terms,
        unused_columns=unused_columns(rows.unused, base.version.card if base else None),
        precision_loss=precision_loss(statistics) if tracked else None,
        precision_bounds=bounds_of(result.bounds, request.targets) if tracked else None,
        weight_kind=statistics.weight_kind,
        discounted=statistics.discounted,
        untracked=statistics.untracked,
        earlier_shares=shares_after(base.version.card, base.decay) if base else {},
        inference_unavailable=model.inference_unavailable,
        warnings=(
            *result.warnings,
            *gap_warnings(rows),
            *warnings_of(model, design, result.solver, refined=result.refined),
        ),
    )


def unused_columns(names: Sequence[str], base: ModelCard | None) -> tuple[str, ...]:
    """Return the unused columns that a card lists: those of its version's rows and of the version it builds on.

    Names longer than MAX_NAME_LENGTH, and names after the first MAX_UNUSED_BYTES, are left out.
    """
    kept, size = [], 0
    for name in dict.fromkeys((*(base.unused_columns if base else ()), *names)):
        if len(name) > MAX_NAME_LENGTH:
            continue
        size += len(name.encode())
        if size > MAX_UNUSED_BYTES:
            break
        kept.append(name)
    return tuple(kept)


def gap_warnings(rows: RowsRead) -> Iterator[str]:
    """Yield a warning about rows that were left out."""
    if rows.dropped:
        by_column = gaps_listed(rows.gaps.by_column)
        yield f"{rows.dropped} row(s) were dropped because a value is missing. Gaps by column: {by_column}."
