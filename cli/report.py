"""`meterbridge report`: unbilled and deferred roll-forwards, postings by state, accounting periods."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cli import report_balances
from cli.output import emit, table
from cli.report_balances import amount_text
from cli.report_operations import operations

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(help="Control reports over documents and postings.", no_args_is_help=True)

app.command()(report_balances.unbilled)
app.command()(report_balances.deferred)


@app.command()
def postings() -> None:
    """Show postings by state, and for those that wait what to do about them."""
    from cli.erp import open_ledger  # noqa: PLC0415
    from sinks.ledger import period_report  # noqa: PLC0415

    with open_ledger() as (engine, _):
        counts, waiting = period_report.by_state(engine), period_report.waiting(engine)
    rows = [
        (one.entity, one.state, one.reason, f"{one.postings:,}", f"{one.documents:,}", f"{one.oldest:%Y-%m-%d %H:%M}")
        for one in counts
    ]
    columns = ("entity", "state", "reason", "postings", "documents", "oldest")
    parts: list[RenderableType] = [table("Postings", columns, rows, ("postings", "documents"))]
    if waiting:
        held = [(one.key, one.entity, one.state, one.reason, one.detail, one.do) for one in waiting]
        parts.append(table("Wait for somebody", ("key", "entity", "state", "reason", "detail", "do"), held))
    emit({"states": [asdict(one) for one in counts], "waiting": [asdict(one) for one in waiting]}, *parts)


@app.command()
def periods(entity: Annotated[str, typer.Option(help="Only this entity.")] = "") -> None:
    """Show accounting periods: open or closed, revenue, not in the ERP yet, and corrections of closed ones."""
    from cli.erp import open_ledger  # noqa: PLC0415
    from core.clock import SystemClock  # noqa: PLC0415
    from sinks.ledger import period_report  # noqa: PLC0415
    from sinks.ledger import unbilled as reports  # noqa: PLC0415

    with open_ledger() as (engine, history):
        entities = {one.id: one for revision in history.revisions for one in revision.configuration.entities}
        found = [
            one
            for one in period_report.periods(engine, entities, SystemClock().now())
            if not entity or one.entity == entity
        ]
        corrections = reports.prior_corrections(engine, entity)
    rows = [
        (
            one.entity,
            one.period,
            one.currency,
            f"{one.state} ({one.state_by})",
            f"{one.documents:,}",
            amount_text(one.revenue),
            f"{one.undelivered:,}",
            "yes" if one.can_close else "no",
        )
        for one in found
    ]
    columns = ("entity", "period", "currency", "state", "documents", "revenue", "not in ERP", "can close")
    right = ("documents", "revenue", "not in ERP")
    parts: list[RenderableType] = [table("Accounting periods", columns, rows, right)]
    if corrections:
        lines = [
            (one.entity, one.period, one.original_period, one.customer, amount_text(one.amount), one.currency)
            for one in corrections
        ]
        names = ("entity", "booked in", "belongs to", "customer", "amount", "currency")
        parts.append(table("Corrections of closed periods", names, lines, ("amount",)))
    emit(
        {
            "periods": [asdict(one) | {"can_close": one.can_close} for one in found],
            "corrections": [asdict(one) for one in corrections],
        },
        *parts,
    )


app.command()(operations)
