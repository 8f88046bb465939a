"""The fields of a model card about its categories: joint F tests, and marginal means by level."""

from typing import Any

import numpy as np

from app.data.columns.schema import MISSING_LEVEL, Column
from app.data.columns.terms import indicator_blocks
from app.registry.version_file import Version
from app.regression.category_tests import joint_f_test, marginal_means
from app.web.card_reasons import MAX_DECOMPOSED_COLUMNS, NO_LEVEL, NOT_IDENTIFIABLE, TOO_WIDE, NullReasons

MAX_TEST_WORK = 2 * 10**10  # Operations of all joint tests of a card, a few seconds of work.

CATEGORY_TESTS, MARGINAL_MEANS = "category_tests", "marginal_means"


class CategoryStatistics:
    """Computes the fields of one version's card, and adds the reason for each null to `reasons`."""

    def __init__(self, version: Version, level: float, reasons: NullReasons) -> None:
        card = version.card
        self._card, self._model = card, version.model
        self._level, self._reasons = level, reasons
        blocks = () if card.table is None else indicator_blocks(card.terms, card.table)
        self._categories = [(column, block) for column, block in blocks if column.kind == "category"]

    def fields(self) -> dict[str, Any]:
        """Return the fields by name. They are empty without categories."""
        if not self._categories:
            return {CATEGORY_TESTS: {}, MARGINAL_MEANS: {}}
        if (reason := self._reasons.imprecise) is not None:
            return dict(self._reasons.withhold([CATEGORY_TESTS, MARGINAL_MEANS], reason))
        if len(self._model.columns) > MAX_DECOMPOSED_COLUMNS:
            return dict(self._reasons.withhold([CATEGORY_TESTS, MARGINAL_MEANS], TOO_WIDE))
        return {CATEGORY_TESTS: self._tests(), MARGINAL_MEANS: self._means()}

    def _tests(self) -> dict[str, Any] | None:
        work = len(self._categories) * len(self._model.columns) ** 3
        reason = self._card.inference_unavailable
        if reason is None and work > MAX_TEST_WORK:
            reason = (
                f"{len(self._categories)} categories among {len(self._model.columns)} columns are too many to test."
            )
        if reason is not None:
            self._reasons.withhold([CATEGORY_TESTS], reason)
            return None
        tests: dict[str, Any] = {target: {} for target in self._card.targets}
        for column, block in self._categories:
            test = joint_f_test(self._model, block)
            for index, target in enumerate(self._card.targets):
                f, p_value = test.f_values[index], test.p_values[index]
                tests[target][column.name] = {
                    "f": _known(f),
                    "p_value": _known(p_value),
                    "degrees_of_freedom": test.hypotheses,
                }
                if not np.isfinite([f, p_value]).all():
                    self._reasons.by_path[f"{CATEGORY_TESTS}.{target}.{column.name}"] = NOT_IDENTIFIABLE
        return tests

    def _means(self) -> dict[str, Any]:
        means: dict[str, Any] = {target: {} for target in self._card.targets}
        for column, block in self._categories:
            found = marginal_means(self._model, block, self._level)
            for index, target in enumerate(self._card.targets):
                rows = [found.means, found.lower, found.upper]
                values = [None if row is None else row[:, index].tolist() for row in rows]
                means[target][column.name] = self._by_level(target, column, values)
        if self._card.inference_unavailable is not None:
            names = (f"{MARGINAL_MEANS}.*.*.*.{bound}" for bound in ("lower", "upper"))
            self._reasons.by_path |= dict.fromkeys(names, self._card.inference_unavailable)
        return means

    def _by_level(self, target: str, column: Column, values: list[Any]) -> dict[str, Any]:
        levels = [*column.levels, *([MISSING_LEVEL] if column.missing == "indicator" else [])]
        by_level = {}
        for place, level in enumerate(levels):
            mean, lower, upper = (None if row is None else _known(row[place]) for row in values)
            by_level[level] = {"mean": mean, "lower": lower, "upper": upper}
            if mean is None:
                self._reasons.by_path[f"{MARGINAL_MEANS}.{target}.{column.name}.{level}"] = NO_LEVEL
        return by_level


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
