"""Refuse a training that leaves out too many rows because of gaps."""

from dataclasses import replace

from app.data.columns.gap_patterns import explain_too_few
from app.data.columns.schema import TableSchema
from app.data.names import shown
from app.errors import InvalidInput
from app.registry.model_card import ModelCard
from app.registry.version_file import Version
from app.regression.fit import FitResult
from app.training.dataset import JobRows, RowsRead
from app.training.request import TrainingRequest

# Largest increase of the share of rows that are left out, compared with the current version.
MAX_INCREASE = 0.2
MAX_COLUMNS = 20  # Columns in a message.


def check_gaps(request: TrainingRequest, rows: JobRows, result: FitResult, current: Version | None) -> None:
    """Raise InvalidInput if fewer rows than coefficients are complete, or a much smaller share than before."""
    if request.mode != "replace" or not rows.dropped:
        return
    has_intercept = result.model.has_intercept
    if rows.complete < len(rows.columns) + has_intercept:
        widths = {column.name: len(column.encoded_names) for column in rows.schema.features}
        raise explain_too_few(rows.complete, rows.gaps, widths, has_intercept)
    if current is None or request.infer_columns or request.reading.missing == "drop":
        return
    total = rows.complete + rows.dropped
    before, now = incomplete_share(current.card), rows.dropped / total
    if now > before + MAX_INCREASE:
        raise InvalidInput(
            f"{rows.dropped} of {total} rows have gaps and would be left out, {now:.0%} of them; in version "
            f"{current.card.version} it was {before:.0%}. Gaps by column: {gaps_listed(rows.gaps.by_column)}. Fill "
            "them in; or add `missing=drop` if this is right."
        )


def with_counts(table: TableSchema, rows: RowsRead, base: ModelCard | None, mode: str) -> TableSchema:
    """Return the schema with the numbers of rows and incomplete rows of the job, and of the base that it updates."""
    total, incomplete = _counts(base) if base is not None else (0, 0)
    if mode != "forget":
        total, incomplete = total + rows.complete + rows.dropped, incomplete + rows.dropped
    return replace(table, rows=total, incomplete_rows=incomplete)


def incomplete_share(card: ModelCard) -> float:
    """Return the share of the rows sent for a version, and for those that it updates, that had gaps."""
    total, incomplete = _counts(card)
    return incomplete / total if total else 0.0


def _counts(card: ModelCard) -> tuple[int, int]:
    """Return the numbers of rows and of incomplete rows that were sent for a version; 0 if they were not recorded."""
    if card.table is not None and card.table.rows:
        return card.table.rows, card.table.incomplete_rows
    return (card.rows + card.dropped_rows, card.dropped_rows) if card.mode == "replace" else (0, 0)


def gaps_listed(gaps: dict[str, int]) -> str:
    """Return the columns with gaps and their numbers."""
    listed = ", ".join(f"{shown(name)} {count}" for name, count in list(gaps.items())[:MAX_COLUMNS])
    return listed + (f" and {len(gaps) - MAX_COLUMNS} more columns" if len(gaps) > MAX_COLUMNS else "")
