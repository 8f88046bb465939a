"""The solvers: one file each, found through one table.

Importing them loads neither torch nor scipy.
"""

from dataclasses import replace
from typing import Any, cast

import msgspec

from app.regression.solvers.base import Solver
from app.regression.solvers.exact import Exact
from app.regression.solvers.gradient_descent import GradientDescent, Start
from app.regression.solvers.imported import Imported

__all__ = [
    "SOLVERS",
    "SOLVER_OF_KIND",
    "Exact",
    "GradientDescent",
    "Imported",
    "Solver",
    "Start",
    "solver_from_record",
    "solver_to_record",
    "with_options",
]

# The first is the default of a request without a `kind`.
SOLVERS: tuple[type[Solver], ...] = (Exact, GradientDescent)
SOLVER_OF_KIND = {solver().kind: solver for solver in SOLVERS}
_RECORDS = {**SOLVER_OF_KIND, Imported.kind: Imported}  # Kinds in cards.


def with_options(solver: Solver, **options: Any) -> Solver:
    """Return the solver with other values of these options."""
    changed: Solver = replace(cast(Any, solver), **options)
    return changed


def solver_to_record(solver: Solver) -> dict[str, Any]:
    """Return the options as plain values. Nested options that are not given are left out."""
    return {
        name: {key: inner for key, inner in value.items() if inner is not None} if isinstance(value, dict) else value
        for name, value in msgspec.to_builtins(solver).items()
    }


def solver_from_record(expected: type, record: Any) -> Any:
    """Return the solver of a record: the `dec_hook` of msgspec for fields of type Solver. Raises ValueError."""
    if expected is not Solver:
        raise NotImplementedError(f"Only solvers are read here, not {expected}.")
    kind = record.get("kind")
    if kind not in _RECORDS:
        raise ValueError(f"There is no solver of the kind {kind!r}.")
    return msgspec.convert(record, _RECORDS[kind])
