"""The file of a version for a merge at another site: its statistics, without what would reveal single rows."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from app.data.columns.schema import PLAIN, TableSchema
from app.data.columns.terms import indicator_blocks
from app.data.names import shown
from app.errors import Conflict
from app.registry.model_card import ModelCard
from app.registry.version_file import Version, encode
from app.regression.disclosure import without_row_values

# Rounding error of a number of rows that is computed from a mean.
_ROUNDING = 1e-3


def encode_for_merge(version: Version, min_rows: int) -> bytes:
    """Return the bytes of the file. Raises Conflict if the version, or a level of a category, has too few rows."""
    check_disclosure(version, min_rows)
    model, statistics = version.model, without_row_values(version.model.statistics)
    centre = model.centre_prediction
    if centre is not None:
        moved = (statistics.shift - model.statistics.shift)[: statistics.features]
        centre = centre + model.coef @ moved
    return encode(_card(version.card), replace(model, known_statistics=statistics, centre_prediction=centre))


def check_disclosure(version: Version, min_rows: int) -> None:
    """Raise Conflict if the statistics of the version are those of too few rows to leave the service."""
    card = version.card
    if card.imported is not None and not card.has_rows:
        raise Conflict(f"Version {card.version} was {card.imported.reason}, so it is not exported for a merge.")
    rows = int(min(card.rows, version.model.statistics.effective_rows))
    if rows < min_rows:
        decayed = f", which decay has reduced to the weight of {rows}" if rows < card.rows else ""
        raise Conflict(
            f"Version {card.version} has {card.rows} row(s){decayed}, and a version is exported for a merge from "
            f"{min_rows} rows on (LINSERVE_MIN_MERGE_ROWS). Add rows first."
        )
    small = dict(_small_groups(version, min_rows))
    if small:
        total = sum(small.values())
        columns = ", ".join(f"{shown(name)} {count}" for name, count in list(small.items())[:10])
        raise Conflict(
            f"{total} level(s) of version {card.version} have fewer than {min_rows} rows, so their statistics would "
            f"reveal those rows. Numbers of such levels by column: {columns}. Train a version without these rows, or "
            f"without these columns: `drop={','.join(list(small)[:10])}`, with `schema=infer`."
        )


def _small_groups(version: Version, min_rows: int) -> Iterator[tuple[str, int]]:
    """Yield each category, boolean or gap indicator with levels of too few rows, and the number of those levels."""
    card, statistics = version.card, version.model.statistics
    table, counts = card.schema_of_rows, statistics.indicator_rows
    for column, block in indicator_blocks(card.terms, table):
        if counts is None:
            yield column.name, column.indicators  # They were not counted.
            continue
        rows = np.append(counts[block], statistics.rows - counts[block].sum())  # The reference level comes last.
        if small := int(((rows > 0) & (rows < min_rows)).sum()):
            yield column.name, small
    places = {name: place for place, name in enumerate((*card.columns, *card.targets))}
    for column in (*table.features, *table.targets):
        if column.kind != "boolean" or column.name not in places:
            continue
        true = float(statistics.mean[places[column.name]]) * statistics.rows
        if small := sum(_ROUNDING < rows < min_rows - _ROUNDING for rows in (true, statistics.rows - true)):
            yield column.name, small


def _card(card: ModelCard) -> ModelCard:
    """Return the card without the version's history, and without counts and names that come from single rows."""
    return replace(
        card,
        job=None,
        parent=None,
        upload=None,
        mode="replace",
        earlier_shares=None,
        dropped_rows=0,
        gaps={},
        table=_table(card.schema_of_rows),
        unused_columns=(),
        beats_current=None,
        promoted=None,
        metrics={name: value for name, value in card.metrics.items() if name != "cross_validation"},
        validation=None,
        no_folds=None,
        diagnostics=None,
        no_diagnostics=None,
        warnings=(),
        libraries={},
    )


def _table(table: TableSchema) -> TableSchema:
    return replace(table, dialect=PLAIN, left_out=(), rows=0, incomplete_rows=0)
