"""The commands that list, show and change models."""

import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from linserve._plans import models as plans
from linserve._steps import segment
from linserve.cli.completion import complete_model, complete_selector
from linserve.cli.session import Session, connected, fail, split_selector, version_path
from linserve.cli.text import clean, ranges

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.", autocompletion=complete_model)]
Limit = Annotated[int, typer.Option(min=1, show_default=False, help="How many to list, the newest first. Default: 20.")]
_PAGE = 100
# Columns of the table of coefficients, and the fields of the card that they come from.
_STATISTICS = {"standard_error": "standard_errors", "t_value": "t_values", "p_value": "p_values"}


@connected
def models(session: Session) -> None:
    """List the models.

    \b
    Example: linserve models
    """  # noqa: D301 - \b is the mark of typer for lines that are not to be joined
    found = pages(session, "/models")
    if session.output.draws and not session.output.json:
        found = ({**item, "versions": ranges(item["versions"])} for item in found)
    session.output.items(found, ("model", "current", "versions", "features", "targets"))


@connected
def show(
    session: Session,
    *,
    selector: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL[@VERSION]]",
            help="A model, or one of its versions by number or alias. Default: the default model.",
            autocompletion=complete_selector,
        ),
    ] = None,
    level: Annotated[float | None, typer.Option(help="Level of the confidence intervals. Default: 0.95.")] = None,
) -> None:
    """Show the card of a version: its coefficients with standard errors, and how well it fits.

    \b
    Example: linserve show crop-yield@1
    """  # noqa: D301 - as above
    if selector is None:
        selector = session.default_model()
    model, version = split_selector(selector)
    path = f"/models/{segment(model)}" if version is None else version_path(session, model, version)
    card = session.get(path, level=level)
    if session.output.json:
        session.output.document(card)
        return
    if card.get("version") is None:
        fail(f"{model} has no current version. Versions: {', '.join(map(str, card['versions']))}.")
    write_card(session, card)


def write_card(session: Session, card: dict[str, Any]) -> None:
    output = session.output
    names = ("model", "version", "current", "created_at", "mode", "rows", "dropped_rows", "features", "targets")
    metrics = metrics_of(card)
    output.fields([*((name, card.get(name)) for name in (*names, "inference_unavailable")), *metrics])
    columns = ("column", "coefficient", *_STATISTICS, "lower", "upper")
    if output.draws:  # Narrow enough for most terminals.
        for target in card["coefficients"]:
            output.text("")
            rows = ([*row[:3], *map(_short, row[3:5]), *row[5:]] for row in _coefficients(card, target))
            output.table(("column", "coefficient", "std error", "t", "p", "lower", "upper"), rows, title=target)
    else:
        output.text("")
        rows = ([target, *row] for target in card["coefficients"] for row in _coefficients(card, target))
        output.table(("target", *columns), rows)
    output.warnings(card.get("warnings") or ())


def metrics_of(card: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the metrics of each target in a card or a job, with names such as `r2[rent]`."""
    by_target = {name: value for name, value in (card.get("metrics") or {}).items() if isinstance(value, dict)}
    by_target.pop("cross_validation", None)
    return [(f"{name}[{target}]", value) for target, values in by_target.items() for name, value in values.items()]


def _coefficients(card: dict[str, Any], target: str) -> Iterator[list[Any]]:
    intercept = {"intercept": card["intercept"][target]}
    for column, value in (*intercept.items(), *card["coefficients"][target].items()):
        statistics = [_of(card, field, target, column) for field in _STATISTICS.values()]
        lower, upper = _of(card, "confidence_intervals", target, column) or (None, None)
        yield [column, value, *statistics, lower, upper]


def _short(value: float | None) -> float | None:
    """Round a t value or a p value to the digits that matter to a reader."""
    return None if value is None else float(f"{value:.3g}")


def _of(card: dict[str, Any], field: str, target: str, column: str) -> Any:
    return ((card.get(field) or {}).get(target) or {}).get(column)


@connected
def versions(
    session: Session,
    *,
    model: Model,
    limit: Annotated[
        int, typer.Option(min=1, help="Number of versions, the newest first. Default: 20.", show_default=False)
    ] = 20,
) -> None:
    """List the versions of a model, the newest first.

    \b
    Example: linserve versions crop-yield
    """  # noqa: D301 - as above
    path = f"/models/{segment(model)}"
    numbers = sorted(session.get(path)["versions"], reverse=True)
    cards = (session.get(f"{path}/versions/{number}") for number in numbers[:limit])
    columns = ("version", "current", "created_at", "mode", "rows", "parent", "targets", "features")
    session.output.items(cards, columns)
    if len(numbers) > limit:
        session.output.note(f"{len(numbers) - limit} older versions are not listed. Add --limit {len(numbers)}.")


@connected
def promote(
    session: Session,
    *,
    model: Model,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Number or alias of the version.")],
) -> None:
    """Make a version the current one, which predictions come from.

    \b
    Example: linserve promote crop-yield 1
    """  # noqa: D301 - as above
    number = int(version_path(session, model, version).rpartition("/")[2])
    _write_promotion(session, session.run(lambda retries: plans.promote(retries, model, number)))


@connected
def rollback(session: Session, model: Model) -> None:
    """Make the newest version before the current one current again.

    \b
    Example: linserve rollback crop-yield
    """  # noqa: D301 - as above
    _write_promotion(session, session.run(lambda retries: plans.rollback(retries, model)))


@connected
def delete(
    session: Session,
    *,
    selector: Annotated[
        str,
        typer.Argument(
            metavar="MODEL[@VERSION]",
            help="A model with all versions, or one version.",
            autocompletion=complete_selector,
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Allow deleting the default model.")] = False,
) -> None:
    """Delete a model with all its versions, or one version.

    On a terminal, the command asks first.

    \b
    Example: linserve delete crop-yield@1
    """  # noqa: D301 - as above
    model, version = split_selector(selector)
    number = None if version is None else int(version_path(session, model, version).rpartition("/")[2])
    what = f"model {model} with all versions" if number is None else f"version {number} of {model}"
    if sys.stdin.isatty() and not yes:
        typer.confirm(f"Delete {clean(what)}?", abort=True, err=True)
    session.run(lambda retries: plans.delete(retries, model, number, force=force))
    if not session.output.json:
        session.output.text(f"Deleted {what}.")


def _write_promotion(session: Session, card: dict[str, Any]) -> None:
    if session.output.json:
        session.output.document(card)
    else:
        session.output.text(f"Version {card['version']} of {card['model']} is current.")


def pages(session: Session, path: str, limit: int | None = None, **params: Any) -> Iterator[dict[str, Any]]:
    """Yield the items of a list of the API, page by page."""
    cursor, left = None, limit
    while left is None or left > 0:
        page = session.get(path, limit=min(_PAGE, left or _PAGE), next=cursor, **params)
        yield from page["items"]
        left = None if left is None else left - len(page["items"])
        cursor = page["next"]
        if cursor is None:
            return
