"""`meterbridge report`: unbilled roll-forward and ageing, postings by state, accounting periods."""

from dataclasses import asdict
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.context import context
from cli.output import emit, table
from core.errors import InvalidRequest

if TYPE_CHECKING:
    from rich.console import RenderableType
    from sqlalchemy import Engine

    from config.revision import History
    from sinks.ledger.unbilled import Roll

app = typer.Typer(help="Control reports over documents and postings.", no_args_is_help=True)

_FIRST, _LAST = "0000-00", "9999-99"


@app.command()
def unbilled(
    period: Annotated[str, typer.Option(help="Accounting period, YYYY-MM. Default: all.")] = "",
    entity: Annotated[str, typer.Option(help="Only this entity.")] = "",
    customer: Annotated[str, typer.Option(help="Only this customer.")] = "",
    erp: Annotated[bool, typer.Option("--erp", help="Compare the balances with the ERP's.")] = False,
) -> None:
    """Show unbilled per customer: opening + accrued + corrections + invoiced + reversed = closing, and its age.

    With --erp the balance of the unbilled accounts is read from the ERP; the exit code is 0 only if they agree.
    """
    from cli.erp import open_ledger  # noqa: PLC0415
    from core.clock import SystemClock  # noqa: PLC0415
    from sinks.ledger import unbilled as reports  # noqa: PLC0415
    from sinks.ledger.database import read  # noqa: PLC0415

    with open_ledger() as (engine, history):
        with read(engine) as connection:
            found = reports.movements(connection, entity, customer)
            rolls = reports.roll_forward(found, period or _FIRST, period or _LAST, SystemClock().now())
        balances = _balances(engine, history, entity) if erp else []
    data: dict[str, Any] = {
        "period": period or "all",
        "customers": [asdict(one) | {"closing": one.closing, "is_overdue": one.is_overdue} for one in rolls],
        "totals": _totals(rolls),
        "erp": balances,
    }
    emit(data, *_unbilled_tables(rolls, balances, period or "all periods"))
    wrong = [one for one in balances if one["difference"]]
    if wrong:
        message = f"{len(wrong)} unbilled balances differ from the ERP's: run `meterbridge reconcile --erp`"
        raise InvalidRequest(message)


def _totals(rolls: "list[Roll]") -> list[dict[str, Any]]:
    names = ("opening", "accrued", "corrections", "invoiced", "reversed", "closing", "not_in_erp")
    sums: dict[tuple[str, str], dict[str, Any]] = {}
    for roll in rolls:
        one = sums.setdefault(
            (roll.entity, roll.currency), {"entity": roll.entity, "currency": roll.currency, **dict.fromkeys(names, 0)}
        )
        for name in names:
            one[name] += getattr(roll, name)
    return [sums[key] for key in sorted(sums)]


def _unbilled_tables(rolls: "list[Roll]", balances: list[dict[str, Any]], title: str) -> "list[RenderableType]":
    from sinks.ledger.unbilled import AGES_DAYS, ALARM_DAYS  # noqa: PLC0415

    numbers = ("opening", "accrued", "corrections", "invoiced", "reversed", "closing", "not in ERP")
    ages = (*(f"to {days} d" for days in AGES_DAYS), f"over {ALARM_DAYS} d")
    rows = [
        (
            one.entity,
            one.customer,
            one.currency,
            *map(
                _amount,
                (
                    one.opening,
                    one.accrued,
                    one.corrections,
                    one.invoiced,
                    one.reversed,
                    one.closing,
                    one.not_in_erp,
                    *one.ages,
                ),
            ),
        )
        for one in rolls
    ]
    columns = ("entity", "customer", "currency", *numbers, *ages)
    parts: list[RenderableType] = [table(f"Unbilled, {title}", columns, rows, (*numbers, *ages))]
    overdue = [one.customer for one in rolls if one.is_overdue]
    if overdue:
        parts.append(f"older than {ALARM_DAYS} days: {', '.join(overdue[:10])}")
    if balances:
        shown = ("ours", "ERP", "difference")
        lines = [
            (one["account"], one["currency"], *(_amount(one[name]) for name in ("ours", "erp", "difference")))
            for one in balances
        ]
        parts.append(table("Unbilled accounts in the ERP", ("account", "currency", *shown), lines, shown))
    return parts


def _balances(engine: "Engine", history: "History", only: str) -> list[dict[str, Any]]:
    """Return our booked total and the ERP's balance of each unbilled account."""
    from core.clock import SystemClock  # noqa: PLC0415
    from queries.reconcile_erp import books  # noqa: PLC0415
    from sinks.erp.registry import Adapters  # noqa: PLC0415
    from sinks.ledger import read_back  # noqa: PLC0415

    found = []
    for adapter, entities in books(history, Adapters(context().settings)):
        if only and only not in entities:
            continue
        wanted = read_back.accounts_of(engine, adapter, entities, ("unbilled_receivable", "contract_asset"))
        for account, currency, ours, theirs in read_back.balances(engine, adapter, entities, SystemClock().now()):
            if account in wanted:
                difference = theirs - ours
                found.append(
                    {"account": account, "currency": currency, "ours": ours, "erp": theirs, "difference": difference}
                )
    return found


def _amount(value: Decimal | int) -> str:
    return f"{value:,.2f}" if value == round(value, 2) else f"{value:,f}"


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
            _amount(one.revenue),
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
            (one.entity, one.period, one.original_period, one.customer, _amount(one.amount), one.currency)
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
