"""`meterbridge report operations`: how fast months are done, and how much of it needs hands."""

from dataclasses import asdict
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.context import context
from cli.output import emit, table
from cli.report_balances import amount_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from queries.operations import Report

_SHOWN_MAX = 20


def operations(
    entity: Annotated[str, typer.Option(help="Only this entity.")] = "",
    periods: Annotated[int, typer.Option(min=1, max=120, help="So many accounting periods of each entity.")] = 6,
) -> None:
    """Show hours from period end to booked, posted, reconciled, invoiced and sealed; first-time posting and touches.

    And what came late or belongs to earlier periods, usage without a price, and how old open exceptions are.
    """
    from core.clock import SystemClock  # noqa: PLC0415
    from queries.operations import report  # noqa: PLC0415
    from queries.stores import open_stores  # noqa: PLC0415

    with open_stores(context().settings) as stores:
        found = report(stores, SystemClock().now(), entity=entity, periods=periods)
    months = [
        asdict(one) | {"first_time_percent": one.first_time_percent, "touches_per_1000": one.touches_per_1000}
        for one in found.months
    ]
    data = {
        "months": months,
        "late": [asdict(one) for one in found.late],
        "unrated": [asdict(one) for one in found.unrated],
        "other_touches": found.other_touches,
        "exceptions": [asdict(one) for one in found.exceptions],
    }
    emit(data, *_parts(found))


def _parts(found: "Report") -> "list[RenderableType]":
    steps = ("booked", "posted", "reconciled", "invoiced", "sealed")
    rows = [
        (
            one.entity,
            one.period,
            *(_said(getattr(one, f"hours_to_{step}")) for step in steps),
            f"{one.documents:,}",
            _said(one.first_time_percent),
            _said(one.touches_per_1000),
        )
        for one in found.months
    ]
    numeric = (*steps, "documents", "first time %", "touches/1,000")
    parts: list[Any] = [table("Hours from the period's end until", ("entity", "period", *numeric), rows, numeric)]
    late = [
        (one.entity, one.period, one.currency, *(amount_text(value) for value in (one.amount, one.late, one.prior)))
        for one in found.late
    ]
    amounts = ("amount", "late usage", "of closed periods")
    parts.append(table("Late and prior-period amounts", ("entity", "period", "currency", *amounts), late, amounts))
    if found.unrated:
        unrated = [
            (one.tenant, one.meter, f"{one.events:,}", f"{one.quantity.normalize():,f}", f"{one.since:%Y-%m-%d %H:%M}")
            for one in found.unrated[:_SHOWN_MAX]
        ]
        title = f"Usage without a price, {len(found.unrated):,} subjects and meters"
        parts.append(table(title, ("subject", "meter", "events", "quantity", "since"), unrated, ("events", "quantity")))
    if found.other_touches:
        named = ", ".join(f"{action} {count:,}" for action, count in sorted(found.other_touches.items()))
        parts.append(f"Acts by hand that belong to no posting: {named}")
    if found.exceptions:
        ages = [(one.kind, f"{one.groups:,}", f"{one.count:,}", _said(one.oldest_hours)) for one in found.exceptions]
        numbers = ("groups", "exceptions", "oldest, hours")
        parts.append(table("Open exceptions", ("kind", *numbers), ages, numbers))
    return parts


def _said(value: Decimal | None) -> str:
    return "" if value is None else f"{value:,}"
