"""`meterbridge report unbilled` and `report deferred`: roll-forwards per customer, against the ERP's balances."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.context import context
from cli.erp_drafts import settle_drafts
from cli.output import emit, table
from core.errors import InvalidRequest

if TYPE_CHECKING:
    from rich.console import RenderableType
    from sqlalchemy import Engine

    from config.revision import History
    from sinks.ledger.customer_balances import CustomerBalance
    from sinks.ledger.deferred import DeferredRoll
    from sinks.ledger.unbilled import Roll

_FIRST, _LAST = "0000-00", "9999-99"

Period = Annotated[str, typer.Option(help="Accounting period, YYYY-MM. Default: all.")]
EntityName = Annotated[str, typer.Option(help="Only this entity.")]
CustomerName = Annotated[str, typer.Option(help="Only this customer.")]
WithErp = Annotated[bool, typer.Option("--erp", help="Compare the balances with the ERP's, per customer.")]


def unbilled(period: Period = "", entity: EntityName = "", customer: CustomerName = "", erp: WithErp = False) -> None:
    """Show unbilled per customer: opening + accrued + corrections + invoiced + adjusted + reversed = closing.

    `ahead` is revenue that is not billable yet; closing + ahead is the balance of the unbilled accounts. With --erp it
    is compared with the ERP's, per customer and per account; the exit code is 0 only if they agree.
    """
    from cli.erp import open_ledger  # noqa: PLC0415
    from core.clock import SystemClock  # noqa: PLC0415
    from sinks.ledger import unbilled as reports  # noqa: PLC0415
    from sinks.ledger.database import read  # noqa: PLC0415
    from sinks.ledger.invoice_lines import UNBILLED  # noqa: PLC0415

    with open_ledger() as (engine, history):
        if erp:
            settle_drafts(engine, history, entity)
        with read(engine) as connection:
            found = reports.movements(connection, entity, customer)
            rolls = reports.roll_forward(found, period or _FIRST, period or _LAST, SystemClock().now())
        by_customer = _by_customer(engine, history, entity, customer, UNBILLED, period) if erp else []
        accounts = _accounts(engine, history, entity, UNBILLED) if erp else []
    _fill(rolls, by_customer, sign=1)
    data: dict[str, Any] = {
        "period": period or "all",
        "customers": [
            asdict(one) | {"closing": one.closing, "balance": one.balance, "is_overdue": one.is_overdue}
            for one in rolls
        ],
        "totals": _totals(rolls, (*_UNBILLED_SUMS, "not_in_erp")),
        "erp": accounts,
        "erp_customers": [_plain(one) for one in by_customer],
    }
    parts = [*_unbilled_tables(rolls, period or "all periods", erp=erp), *_erp_tables(by_customer, accounts)]
    emit(data, *parts)
    _check([one for one in accounts if one["difference"]], [one for one in by_customer if one.difference])


def deferred(period: Period = "", entity: EntityName = "", customer: CustomerName = "", erp: WithErp = False) -> None:
    """Show deferred revenue per customer: opening + deferred - recognised + reversed = closing.

    Of prepaid balances it shows what was drawn and what expired. With --erp the balance of the contract liability is
    compared with the ERP's, per customer; prepaid balances are sold there, so theirs are shown as `sold`.
    """
    from cli.erp import open_ledger  # noqa: PLC0415
    from sinks.ledger import deferred as reports  # noqa: PLC0415
    from sinks.ledger.database import read  # noqa: PLC0415
    from sinks.ledger.movements import booked_documents  # noqa: PLC0415

    with open_ledger() as (engine, history):
        with read(engine) as connection:
            found = booked_documents(connection, entity, customer)
            rolls = reports.roll_forward(found, period or _FIRST, period or _LAST)
        by_customer = _by_customer(engine, history, entity, customer, (reports.LIABILITY,), period) if erp else []
    _fill(rolls, by_customer, sign=-1)
    prepaid = _prepaid(history)
    sold = [one for one in by_customer if one.difference and _may_be_sold(one, prepaid)]
    data = {
        "period": period or "all",
        "customers": [asdict(one) | {"closing": one.closing, "balance": one.balance} for one in rolls],
        "totals": _totals(rolls, (*_DEFERRED_SUMS, "not_in_erp")),
        "erp_customers": [
            _plain(one) | {"sold": -one.difference if one in sold else Decimal(0)} for one in by_customer
        ],
    }
    emit(data, *_deferred_tables(rolls, by_customer, sold, period or "all periods", erp=erp))
    _check([], [one for one in by_customer if one.difference and one not in sold])


_UNBILLED_SUMS = (
    *("opening", "accrued", "corrections", "invoiced", "adjusted", "reversed", "closing"),
    *("ahead", "balance"),
)
_DEFERRED_SUMS = ("opening", "deferred", "recognised", "reversed", "closing", "drawn", "expired", "balance")


def _prepaid(history: "History") -> set[str]:
    """Return the customers that have or had a prepaid commitment."""
    return {
        customer.id
        for revision in history.revisions
        for customer in revision.configuration.customers
        if any(one.type == "prepaid" for contract in customer.contracts for one in contract.commitments)
    }


def _may_be_sold(one: "CustomerBalance", prepaid: set[str]) -> bool:
    """Tell whether the ERP may have sold a prepaid balance: to these customers, or to one it does not name."""
    return bool(prepaid & one.by_customer.keys()) or (not one.name and bool(prepaid))


def _by_customer(
    engine: "Engine", history: "History", only: str, customer: str, roles: Sequence[str], period: str
) -> "list[CustomerBalance]":
    from queries.reconcile_erp import books  # noqa: PLC0415
    from sinks.erp.registry import Adapters  # noqa: PLC0415
    from sinks.ledger import customer_balances  # noqa: PLC0415

    found: list[CustomerBalance] = []
    for adapter, entities in books(history, Adapters(context().settings)):
        if not only or only in entities:
            found += customer_balances.compare(engine, adapter, entities, roles, period or _LAST) or []
    return [one for one in found if not customer or customer in one.by_customer]


def _accounts(engine: "Engine", history: "History", only: str, roles: Sequence[str]) -> list[dict[str, Any]]:
    """Return our booked total and the ERP's balance of each account of these roles, as of now."""
    from core.clock import SystemClock  # noqa: PLC0415
    from queries.reconcile_erp import books  # noqa: PLC0415
    from sinks.erp.registry import Adapters  # noqa: PLC0415
    from sinks.ledger import read_back  # noqa: PLC0415

    found = []
    for adapter, entities in books(history, Adapters(context().settings)):
        if only and only not in entities:
            continue
        wanted = read_back.accounts_of(engine, adapter, entities, roles)
        for account, currency, ours, theirs in read_back.balances(engine, adapter, entities, SystemClock().now()):
            if account in wanted:
                difference = theirs - ours
                found.append(
                    {"account": account, "currency": currency, "ours": ours, "erp": theirs, "difference": difference}
                )
    return found


def _fill(rolls: "Iterable[Roll] | Iterable[DeferredRoll]", found: "Iterable[CustomerBalance]", *, sign: int) -> None:
    """Give each customer the ERP's balance, where entries name it, and nobody else with it."""
    places: dict[tuple[str, str], set[str]] = {}
    balances: dict[tuple[str, str, str], Decimal] = {}
    for one in found:
        for customer in one.by_customer:
            places.setdefault((customer, one.currency), set()).add(one.name)
        if one.name and len(one.by_customer) == 1 and len(one.entities) == 1:
            balances[one.entities[0], next(iter(one.by_customer)), one.currency] = one.erp
    for roll in rolls:
        if len(places.get((roll.customer, roll.currency), ())) == 1:
            balance = balances.get((roll.entity, roll.customer, roll.currency))
            roll.erp = None if balance is None else sign * balance


def _plain(one: "CustomerBalance") -> dict[str, Any]:
    return {
        "entities": list(one.entities),
        "name": one.name,
        "customers": sorted(one.by_customer),
        "currency": one.currency,
        "ours": one.ours,
        "erp": one.erp,
        "difference": one.difference,
    }


def _totals(rolls: "Sequence[Roll] | Sequence[DeferredRoll]", names: tuple[str, ...]) -> list[dict[str, Any]]:
    sums: dict[tuple[str, str], dict[str, Any]] = {}
    for roll in rolls:
        one = sums.setdefault(
            (roll.entity, roll.currency),
            {"entity": roll.entity, "currency": roll.currency, **dict.fromkeys(names, Decimal(0))},
        )
        for name in names:
            one[name] += getattr(roll, name)
    return [sums[key] for key in sorted(sums)]


def _unbilled_tables(rolls: "list[Roll]", title: str, *, erp: bool) -> "list[RenderableType]":
    from sinks.ledger.unbilled import AGES_DAYS, ALARM_DAYS  # noqa: PLC0415

    ages = (*(f"to {days} d" for days in AGES_DAYS), f"over {ALARM_DAYS} d")
    parts: list[RenderableType] = [_roll_table(f"Unbilled, {title}", rolls, _UNBILLED_SUMS, erp=erp)]
    open_ones = [one for one in rolls if any(one.ages)]
    if open_ones:
        rows = [(one.entity, one.customer, one.currency, *map(amount_text, one.ages)) for one in open_ones]
        parts.append(table("Age of what is open", ("entity", "customer", "currency", *ages), rows, ages))
    overdue = [one.customer for one in rolls if one.is_overdue]
    if overdue:
        parts.append(f"older than {ALARM_DAYS} days: {', '.join(overdue[:10])}")
    return parts


def _roll_table(
    title: str, rolls: "Sequence[Roll] | Sequence[DeferredRoll]", sums: tuple[str, ...], *, erp: bool
) -> "RenderableType":
    """Return a roll-forward; columns that are zero for everybody and not always there are left out."""
    shown = [name for name in sums if name in ("opening", "closing") or any(getattr(one, name) for one in rolls)]
    numbers = (*shown, "not in ERP", *(("ERP",) if erp else ()))
    rows = [
        (
            one.entity,
            one.customer,
            one.currency,
            *(amount_text(getattr(one, name)) for name in shown),
            amount_text(one.not_in_erp),
            *(("" if one.erp is None else amount_text(one.erp),) if erp else ()),
        )
        for one in rolls
    ]
    return table(title, ("entity", "customer", "currency", *numbers), rows, numbers)


def _erp_tables(found: "list[CustomerBalance]", accounts: list[dict[str, Any]]) -> "list[RenderableType]":
    parts = _customer_table("Unbilled in the ERP, by customer", found, sign=1)
    if accounts:
        shown = ("ours", "ERP", "difference")
        lines = [
            (one["account"], one["currency"], *(amount_text(one[name]) for name in ("ours", "erp", "difference")))
            for one in accounts
        ]
        parts.append(table("Unbilled accounts in the ERP", ("account", "currency", *shown), lines, shown))
    return parts


def _customer_table(title: str, found: "list[CustomerBalance]", *, sign: int) -> "list[RenderableType]":
    if not found:
        return []
    shown = ("ours", "ERP", "difference")
    rows = [
        (
            ", ".join(one.entities),
            one.name or "(none named)",
            one.currency,
            *(amount_text(sign * value) for value in (one.ours, one.erp, one.difference)),
        )
        for one in found
    ]
    parts: list[RenderableType] = [table(title, ("entities", "customer in the ERP", "currency", *shown), rows, shown)]
    if any(not one.name for one in found):
        parts.append("entries that name no customer: with `posting: {line_grain: [customer]}` they do")
    return parts


def _deferred_tables(
    rolls: "list[DeferredRoll]",
    found: "list[CustomerBalance]",
    sold: "list[CustomerBalance]",
    title: str,
    *,
    erp: bool,
) -> "list[RenderableType]":
    parts: list[RenderableType] = [_roll_table(f"Deferred revenue, {title}", rolls, _DEFERRED_SUMS, erp=erp)]
    parts += _customer_table("Contract liability in the ERP, by customer", found, sign=-1)
    for one in sold:
        parts.append(
            f"{one.name or 'no customer named'}: {amount_text(-one.difference)} {one.currency} sold in the ERP"
        )
    return parts


def _check(accounts: list[dict[str, Any]], customers: "list[CustomerBalance]") -> None:
    """Fail if a balance differs.

    :raises InvalidRequest: one does.
    """
    if accounts or customers:
        named = ", ".join(one.name or "(none named)" for one in customers[:5])
        message = (
            f"{len(accounts)} accounts and {len(customers)} customers differ from the ERP's balances"
            f"{': ' + named if named else ''}: run `meterbridge reconcile --erp`"
        )
        raise InvalidRequest(message)


def amount_text(value: Decimal | int) -> str:
    """Return an amount for people: two places, or all it has."""
    return f"{value:,.2f}" if value == round(value, 2) else f"{value:,f}"
